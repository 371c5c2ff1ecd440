-- Removes an image's record; answers 0: none, 1: done, or the unfinished jobs that need it.
local k = key('image', given.tenant, given.id)
local place = redis.call('HGET', k, 'place')
if not place then return 0 end
local users = redis.call('SMEMBERS', key('uses', given.tenant, given.id))
if #users > 0 then return users end
redis.call('DEL', k)
redis.call('ZREM', key('images', given.tenant), place)
return 1
