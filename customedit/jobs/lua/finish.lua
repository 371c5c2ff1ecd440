-- Ends a job for the one who holds it. A repeat with the same token and outcome is answered 1 again.
local job = load(given.id)
if not held(job) then
  if job and job.state == given.state and job.token == given.token then return 1 end
  return 0
end
if given.result then redis.call('HSET', key('job', job.id), 'result', given.result) end
if given.concept_record then
  redis.call('HSET', key('concept', job.concept), 'tenant', job.tenant, 'state', 'ready',
    'record', given.concept_record)
  redis.call('ZADD', key('concepts', job.tenant), 0, job.concept)
end
finish(job, given.state, given.error)
return 1
