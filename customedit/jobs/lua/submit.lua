-- Makes a job: record, indexes, idempotency entry and concept record, or nothing of it.
-- A second call with the same id changes nothing and answers like the first; one that comes after
-- the job was deleted or taken back makes it no more.
local idem = given.idem and key('idem', given.tenant, given.idem.key)

if redis.call('EXISTS', key('job', given.id)) == 0 then
  if deleted(given.prefix) then return {'gone'} end
  if idem then
    local entry = redis.call('HMGET', idem, 'fingerprint', 'token', 'job')
    if entry[1] then
      if entry[1] ~= given.idem.fingerprint then return {'conflict'} end
      if entry[3] then
        if redis.call('EXISTS', key('job', entry[3])) == 1 then
          return {'replayed', whole(entry[3])}
        end
      elseif entry[2] ~= given.idem.token then
        return {'in-flight'}
      end
    end
  end
  if redis.call('SCARD', key('open', given.tenant)) >= given.queue_limit then return {'full'} end
  for _, id in ipairs(given.uses) do
    if id ~= given.concept then
      local tenant
      if string.sub(id, 1, 4) == 'img_' then
        tenant = redis.call('HGET', key('image', given.tenant, id), 'tenant')
      else
        tenant = redis.call('HGET', key('concept', id), 'tenant')
      end
      if tenant ~= given.tenant then return {'missing', id} end
    end
  end
  redis.call('HSET', key('job', given.id), 'body', given.body, 'tenant', given.tenant,
    'kind', given.kind, 'state', 'queued', 'attempt', 0, 'handed_back', 0,
    'max_attempts', given.max_attempts, 'cost', given.cost, 'uses', table.concat(given.uses, ' '))
  for _, name in ipairs({'webhook', 'concept'}) do
    if given[name] then redis.call('HSET', key('job', given.id), name, given[name]) end
  end
  redis.call('ZADD', key('jobs', given.tenant), 0, given.id)
  redis.call('ZADD', key('jobs', given.tenant, given.kind), 0, given.id)
  redis.call('SADD', key('open', given.tenant), given.id)
  local job = load(given.id)
  each_use(job, function(k) redis.call('SADD', k, given.id) end)
  enqueue(job, given.notify_after)
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
return {'made', whole(given.id)}
