-- Jobs that workers are to be notified of: queued for a while, or running under a lease that is
-- over. Each notification doubles the wait for the next, up to 16 times, so that a long queue does
-- not cause ever more of them.
local due = redis.call('ZRANGEBYSCORE', key('wakeups'), '-inf', seconds(now),
  'LIMIT', 0, given.limit)
local out = {}
for _, id in ipairs(due) do
  local job = load(id)
  if not job then
    redis.call('ZREM', key('wakeups'), id)
  else
    if job.state ~= 'queued' then offer(job) end -- a queued one is offered since it was queued
    local wait = given.notify_after * math.min(2 ^ job.notified, 16)
    redis.call('HINCRBY', key('job', id), 'notified', 1)
    redis.call('ZADD', key('wakeups'), seconds(now + wait), id)
    out[#out + 1] = id
    out[#out + 1] = job.kind
  end
end
return out
