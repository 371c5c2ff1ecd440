-- Takes a queued job, or a running one whose lease is over. A repeat with the same token (the
-- answer got lost) finds its own claim.
local job = load(given.id)
if not job then return false end
if job.state == 'running' and job.token == given.token then return whole(job.id) end
local over = job.state == 'running' and job.lease_until <= now
if job.state ~= 'queued' and not over then return false end
if job.cancel_requested then
  finish(job, 'cancelled')
  return false
end
if job.attempt - job.handed_back >= job.max_attempts then
  finish(job, 'failed', given.exhausted)
  return false
end
local until_ = seconds(now + given.lease)
move(job, 'running')
job.attempt = redis.call('HINCRBY', key('job', job.id), 'attempt', 1)
redis.call('HSET', key('job', job.id), 'worker', given.worker, 'token', given.token,
  'lease_until', until_, 'rings', 0)
redis.call('HSETNX', key('job', job.id), 'started_at', seconds(now))
redis.call('SADD', key('running'), job.id)
redis.call('ZADD', key('ring'), until_, job.id)
if over then redis.call('INCR', key('leases-lost')) end
say_state(job, 'running')
return whole(job.id)
