-- Jobs whose bell is to be rung: queued for a while, or running under a lease that is over. Each
-- ring doubles the wait for the next, up to 16 times, so that a long queue is not rung to death.
local due = redis.call('ZRANGEBYSCORE', key('ring'), '-inf', seconds(now), 'LIMIT', 0, given.limit)
local out = {}
for _, id in ipairs(due) do
  local job = load(id)
  if not job then
    redis.call('ZREM', key('ring'), id)
  else
    local wait = given.ring_after * math.min(2 ^ job.rings, 16)
    redis.call('HINCRBY', key('job', id), 'rings', 1)
    redis.call('ZADD', key('ring'), seconds(now + wait), id)
    out[#out + 1] = id
    out[#out + 1] = job.kind
  end
end
return out
