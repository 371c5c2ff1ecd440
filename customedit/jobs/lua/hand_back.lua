-- Returns a job to the queue unharmed: this attempt does not count.
local job = load(given.id)
if not held(job) then
  if job and job.state == 'queued' and job.token == given.token then return 1 end
  return 0
end
if job.cancel_requested then
  finish(job, 'cancelled')
  return 1
end
redis.call('HINCRBY', key('job', job.id), 'handed_back', 1)
enqueue(job, 0)
return 1
