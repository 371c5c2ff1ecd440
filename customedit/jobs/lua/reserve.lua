-- Takes an idempotency key for a request that is still being written, or says who has it.
local entry = key('idem', given.tenant, given.idem.key)
local found = redis.call('HMGET', entry, 'fingerprint', 'token', 'job')
if found[1] then
  if found[1] ~= given.idem.fingerprint then return {'conflict'} end
  if found[3] then
    if redis.call('EXISTS', key('job', found[3])) == 1 then return {'replayed', whole(found[3])} end
  elseif found[2] ~= given.idem.token then
    return {'in-flight'}
  end
end
redis.call('DEL', entry)
redis.call('HSET', entry, 'fingerprint', given.idem.fingerprint, 'token', given.idem.token)
redis.call('EXPIRE', entry, given.hold)
return {'reserved'}
