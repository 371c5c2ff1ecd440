-- Makes a job: record, indexes, idempotency entry and concept record, or nothing of it.
-- A second call with the same id changes nothing and answers like the first; one that comes after
-- the job was deleted or taken back makes it no more. Answers of a job that this call made when it
-- was queued and whether workers were notified, of any other the whole record.
local idem = given.idem and key('idem', given.tenant, given.idem.key)
local fresh = redis.call('EXISTS', key('job', given.id)) == 0

if fresh then
  if deleted(given.prefix) then return {'gone'} end
  local answer = idem and taken(idem)
  if answer then return answer end
  if redis.call('SCARD', key('open', given.tenant)) >= given.queue_limit then return {'full'} end
  local missing = missing_use(given.tenant, given.uses, given.concept)
  if missing then return {'missing', missing} end
  make_job(given, given.tenant)
end

-- Also for a job that is there already: one that `recover` saw in the journal before this call.
if given.concept_record and redis.call('EXISTS', key('concept', given.concept)) == 0 then
  redis.call('HSET', key('concept', given.concept), 'tenant', given.tenant,
    'state', 'training', 'record', given.concept_record)
  redis.call('ZADD', key('concepts', given.tenant), 0, given.concept)
end
if idem then
  redis.call('HSET', idem, 'fingerprint', given.idem.fingerprint, 'job', given.id)
  redis.call('EXPIRE', idem, given.idem.ttl)
end
if fresh then return {'made', seconds(now), notify()} end
return {'made', whole(given.id)}
