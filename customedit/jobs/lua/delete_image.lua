-- Removes an image's record and marks its folders for deletion. Answers 'deleted' and the folders, none for an
-- image that is not there, or 'in-use' and the unfinished jobs that need it.
local k = key('image', given.tenant, given.id)
local found = redis.call('HMGET', k, 'place', 'prefix')
if not found[1] then return {'deleted'} end
local users = redis.call('SMEMBERS', key('uses', given.tenant, given.id))
if #users > 0 then return {'in-use', users} end
redis.call('DEL', k, key('inverted', given.tenant, given.id))
redis.call('ZREM', key('images', given.tenant), found[1])
redis.call('SADD', key('deleting'), found[2], given.inversions)
return {'deleted', found[2], given.inversions}
