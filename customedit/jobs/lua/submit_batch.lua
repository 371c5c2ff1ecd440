-- Makes all jobs of a batch, or none. A second call with the same ids answers like the first.
local idem = given.idem and key('idem', given.tenant, given.idem.key)
local batch = given.jobs[1].batch
local notified = 1

if redis.call('EXISTS', key('batch', batch)) == 0 then
  for _, made in ipairs(given.jobs) do
    if deleted(made.prefix) then return {'gone'} end
  end
  local answer = idem and taken(idem)
  if answer then return answer end
  local open = redis.call('SCARD', key('open', given.tenant))
  if open + #given.jobs > given.queue_limit then return {'full'} end
  for _, made in ipairs(given.jobs) do
    local missing = missing_use(given.tenant, made.uses)
    if missing then return {'missing', missing} end
  end
  for _, made in ipairs(given.jobs) do
    if redis.call('EXISTS', key('job', made.id)) == 0 then make_job(made, given.tenant) end
  end
  notified = notify()
end

local first = redis.call('ZRANGE', key('batch', batch), 0, 0)[1]
if idem then
  redis.call('HSET', idem, 'fingerprint', given.idem.fingerprint, 'job', first, 'batch', batch)
  redis.call('EXPIRE', idem, given.idem.ttl)
end
return {'made', whole(first), notified}
