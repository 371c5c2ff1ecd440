-- Removes a finished job from Redis and marks its folder for deletion. 0: none, -1: not finished,
-- or the unfinished jobs that need an output of it.
local job = load(given.id)
if not job or job.tenant ~= given.tenant then return 0 end
if job.state == 'queued' or job.state == 'running' then return -1 end
local users = redis.call('SMEMBERS', key('uses', job.tenant, job.id))
if #users > 0 then return users end
leave_batch(job.id, job.tenant)
redis.call('DEL', key('job', job.id), key('events', job.id))
redis.call('ZREM', key('jobs', job.tenant), job.id)
redis.call('ZREM', key('jobs', job.tenant, job.state), job.id)
each_index(job.tenant, job.kind, job.uses, function(k) redis.call('ZREM', k, job.id) end)
redis.call('ZREM', key('finished'), job.id)
redis.call('SREM', key('unjournaled'), job.id)
drop_webhook(job.id, job.tenant)
redis.call('SADD', key('deleting'), given.prefix)
return 1
