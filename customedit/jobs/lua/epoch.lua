-- The name of this epoch of Redis: while it stays the same, what was written is still there. '' if
-- Redis does not say.
local current = identity()
if not current then return '' end
if redis.call('HGET', key('epoch'), 'identity') ~= current then
  redis.call('HSET', key('epoch'), 'identity', current, 'name', given.fresh)
end
return redis.call('HGET', key('epoch'), 'name')
