-- Takes a job that is queued, or running under a lease that is over: the one that `id` names, or
-- without `id` the first of the tenant whose turn it is, of the first of `kinds` that has any;
-- `except`: tenants that are passed over. A repeat with the same token (the answer got lost) gives
-- the claim that it made.
local function take(job)
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
  charge(job)
  move(job, 'running')
  job.attempt = redis.call('HINCRBY', key('job', job.id), 'attempt', 1)
  redis.call('HSET', key('job', job.id), 'worker', given.worker, 'token', given.token,
    'lease_until', until_, 'notified', 0)
  redis.call('HSETNX', key('job', job.id), 'started_at', seconds(now))
  redis.call('SADD', key('running'), job.id)
  redis.call('ZADD', key('leases', job.kind), until_, job.id)
  redis.call('ZADD', key('wakeups'), until_, job.id)
  redis.call('ZADD', key('cleanup'), seconds(now + given.cleanup), job.tenant .. '/' .. job.id)
  redis.call('SET', key('claim', given.token), job.id, 'EX', 120)
  if over then redis.call('INCR', key('leases-lost')) end
  state_event(job, 'running')
  return whole(job.id)
end

if given.id then
  local job = load(given.id)
  return job and take(job)
end

local earlier = redis.call('GET', key('claim', given.token))
if earlier then
  local job = load(earlier)
  return job and take(job)
end

local except = {}
for _, tenant in ipairs(given.except) do except[tenant] = true end

-- The next job of a kind, and nil if there is none.
local function next_job(kind)
  local turns = key('turns', kind)
  for _, tenant in ipairs(redis.call('ZRANGE', turns, 0, #given.except)) do
    if not except[tenant] then
      local id = redis.call('ZRANGE', key('claimable', kind, tenant), 0, 0)[1]
      if id then return id, tenant end
      redis.call('ZREM', turns, tenant)
    end
  end
end

for _, kind in ipairs(given.kinds) do
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', key('leases', kind), '-inf', seconds(now),
    'LIMIT', 0, 100)) do
    local job = load(id)
    if job then offer(job) end
    redis.call('ZREM', key('leases', kind), id)
  end
  for _ = 1, 100 do -- some are ended instead of taken
    local id, tenant = next_job(kind)
    if not id then break end
    local job = load(id)
    local taken = job and take(job)
    if taken then return taken end
    -- what is no job, or none to be taken, stands here no more
    withdraw({id = id, kind = kind, tenant = tenant})
  end
end
return false
