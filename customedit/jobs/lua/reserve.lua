-- Takes an idempotency key for a request that is still being written, or says who has it.
local entry = key('idem', given.tenant, given.idem.key)
local answer = taken(entry)
if answer then return answer end
redis.call('DEL', entry)
redis.call('HSET', entry, 'fingerprint', given.idem.fingerprint, 'token', given.idem.token)
redis.call('EXPIRE', entry, given.hold)
return {'reserved'}
