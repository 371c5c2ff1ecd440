-- Queued, or running under a lease that is over: cancelled. Running: asked to stop.
local job = load(given.id)
if not job or job.tenant ~= given.tenant then return false end
if job.state == 'queued' or (job.state == 'running' and job.lease_until <= now) then
  redis.call('HSET', key('job', job.id), 'cancel_requested', 1)
  finish(job, 'cancelled')
elseif job.state == 'running' then
  redis.call('HSET', key('job', job.id), 'cancel_requested', 1)
end
return whole(job.id)
