-- Removes a concept's record and marks its folder for deletion; answers as delete_image does.
local k = key('concept', given.id)
if redis.call('HGET', k, 'tenant') ~= given.tenant then return 0 end
local users = redis.call('SMEMBERS', key('uses', given.tenant, given.id))
if #users > 0 then return users end
redis.call('DEL', k)
redis.call('ZREM', key('concepts', given.tenant), given.id)
redis.call('SADD', key('deleting'), given.prefix)
return 1
