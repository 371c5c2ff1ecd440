-- The name of this life of Redis: while it stays the same, what was written is still there. '' if
-- Redis does not say.
local now_told = told()
if not now_told then return '' end
if redis.call('HGET', key('life'), 'told') ~= now_told then
  redis.call('HSET', key('life'), 'told', now_told, 'name', given.fresh)
end
return redis.call('HGET', key('life'), 'name')
