-- A heartbeat, with or without progress: renews the lease of the one who holds the job.
local job = load(given.id)
if not held(job) then return 'lost' end
local until_ = seconds(now + given.lease)
redis.call('HSET', key('job', job.id), 'lease_until', until_)
redis.call('ZADD', key('leases', job.kind), until_, job.id)
redis.call('ZADD', key('wakeups'), until_, job.id)
withdraw(job) -- its lease may have been over for a moment
if given.progress then
  redis.call('HSET', key('job', job.id), 'progress', given.progress)
  event(job.id, given.event, given.progress)
end
if job.cancel_requested then return 'cancel' end
return 'held'
