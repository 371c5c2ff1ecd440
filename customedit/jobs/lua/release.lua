-- Gives an idempotency key back that was reserved and not used.
local entry = key('idem', given.tenant, given.idem.key)
local found = redis.call('HMGET', entry, 'token', 'job')
if found[1] == given.idem.token and not found[2] then return redis.call('DEL', entry) end
return 0
