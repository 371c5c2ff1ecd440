-- Keeps a concept's record unless there is one. 1: kept, 0: there was one, or it is being deleted.
local k = key('concept', given.id)
if redis.call('EXISTS', k) == 1 then return 0 end
if deleted(given.prefix) then return 0 end
redis.call('HSET', k, 'tenant', given.tenant, 'state', given.state, 'record', given.record)
redis.call('ZADD', key('concepts', given.tenant), 0, given.id)
return 1
