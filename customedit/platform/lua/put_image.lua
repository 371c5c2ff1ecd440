-- Keeps an image's record unless there is one; gives the one that is kept.
local k = key('image', given.tenant, given.id)
if redis.call('EXISTS', k) == 0 then
  redis.call('HSET', k, 'tenant', given.tenant, 'record', given.record, 'place', given.place)
  redis.call('ZADD', key('images', given.tenant), 0, given.place)
end
return redis.call('HGET', k, 'record')
