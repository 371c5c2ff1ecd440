-- What all job scripts share; it stands in front of each. KEYS is unused: the keys follow from the
-- namespace, so these scripts want one Redis, not a cluster. Arguments come as one JSON document.
--
--   <ns>:job:<id>                   hash: body (JSON of what never changes) and what changes
--   <ns>:jobs:<tenant>              sorted set, all scores 0: ids in the order of their making
--   <ns>:jobs:<tenant>:<what>       the same of one state, of one kind, or that make or use a concept
--   <ns>:indexed:<tenant>           string: those by kind and by concept are complete (older versions
--                                   had none)
--   <ns>:open:<tenant>              set: queued and running
--   <ns>:queued:<kind>              sorted set: queued_at
--   <ns>:claimable:<kind>:<tenant>  sorted set: jobs that are queued, or that run under a lease that
--                                   is over; by when they were queued first
--   <ns>:turns:<kind>               sorted set: tenants with claimable jobs, by virtual start time
--   <ns>:shares:<kind>              sorted set: tenants by the virtual finish time of their last job
--   <ns>:virtual-time               hash: kind -> virtual start time of the job that was claimed last
--   <ns>:leases:<kind>              sorted set: running jobs by lease_until
--   <ns>:batch:<id>                 sorted set: the jobs of a batch, by their place in it
--   <ns>:batches:<tenant>           sorted set, all scores 0: ids in the order of their making
--   <ns>:claim:<token>              string: the job that this claim got, for a while
--   <ns>:running                    set
--   <ns>:wakeups                    sorted set: when workers are notified of the job (again)
--   <ns>:cleanup                    sorted set: <tenant>/<id> of claimed jobs, by when to clean up
--   <ns>:finished                   sorted set: finished_at
--   <ns>:unjournaled                set: finished, final.json not yet known to be written
--   <ns>:uses:<tenant>:<id>         set: unfinished jobs that need this image or concept
--   <ns>:events:<id>                stream
--   <ns>:deleting, <ns>:deleted     folders whose owner is deleted: set (files still there), sorted
--                                   set (files removed, by when)
--   <ns>:epoch                      hash: the epoch of Redis that files in the bucket name
--   <ns>:outbox                     sorted set: webhooks to deliver, since when
--   <ns>:hook:<id>                  hash: a job's webhook and how its delivery goes or went
--   <ns>:hooks:<tenant>             sorted set: jobs of the tenant that have one
--   <ns>:outbox:<tenant>            sorted set: when to deliver the tenant's webhooks
--   <ns>:outbox-tenants             set: tenants with webhooks to deliver
--   <ns>:receiver:<tenant>:<host>   hash: how often a receiver of webhooks failed in a row, and
--                                   until when it is left alone
--   <ns>:inverted:<tenant>:<id>     set: inversions of a picture that are kept, for estimates
--   <ns>:workers, <ns>:worker:<name>  workers that live: sorted set (when each said so), JSON
--   <ns>:speed:<machine>            JSON: what workers on a base and device measured last
-- Kept by Python alone:
--   <ns>:presets:<tenant>           hash: name -> JSON
local ns = ARGV[1]
local given = cjson.decode(ARGV[2])

local function key(...) return ns .. ':' .. table.concat({...}, ':') end
local function seconds(x) return string.format('%.6f', x) end -- Lua's own format drops digits

local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1e6

local KNOWN = {'tenant', 'kind', 'state', 'attempt', 'handed_back', 'max_attempts',
  'cancel_requested', 'lease_until', 'token', 'webhook', 'concept', 'uses', 'notified', 'cost', 'place'}

local function load(id)
  local values = redis.call('HMGET', key('job', id), unpack(KNOWN))
  if not values[1] then return nil end
  local job = {id = id}
  for i, name in ipairs(KNOWN) do job[name] = values[i] end
  for _, name in ipairs({'attempt', 'handed_back', 'max_attempts', 'notified'}) do
    job[name] = tonumber(job[name] or 0)
  end
  job.lease_until = tonumber(job.lease_until or 0)
  job.cost = tonumber(job.cost or 1)
  return job
end

-- Whether the owner of a folder is deleted: its files are being removed, or are removed.
local function deleted(prefix)
  return redis.call('SISMEMBER', key('deleting'), prefix) == 1
    or redis.call('ZSCORE', key('deleted'), prefix) ~= false
end

-- What changes whenever Redis may have forgotten something: it was started anew, another took over,
-- or it made room. nil: it does not say.
local function identity()
  local parts = {}
  for section, name in pairs({server = 'run_id', replication = 'master_replid',
    stats = 'evicted_keys'}) do
    local info = redis.pcall('INFO', section)
    local value = type(info) == 'string' and string.match(info, name .. ':(%w+)')
    if not value then return nil end
    parts[#parts + 1] = name .. '=' .. value
  end
  table.sort(parts)
  return table.concat(parts, ' ')
end

local function whole(id) return redis.call('HGETALL', key('job', id)) end

-- Whether the caller holds the job: the token tells two claims apart even if Redis lost its last
-- second and counts an attempt again.
local function held(job)
  return job and job.state == 'running' and job.attempt == given.attempt
    and job.token == given.token
end

local function event(id, kind, data)
  redis.call('XADD', key('events', id), 'MAXLEN', '~', given.events_max, '*',
    'kind', kind, 'data', data)
end

local function state_event(job, state, err)
  local data = '{"state":"' .. state .. '","attempt":' .. string.format('%d', job.attempt)
  if err then data = data .. ',"error":' .. err end
  event(job.id, 'state', data .. '}')
end

-- Fair share between tenants: start-time fair queueing (Goyal, Vin and Cheng, 1996). Each claim
-- moves its tenant's virtual time on by the job's cost; the tenant that is least far is next. One
-- that comes back after a pause starts at the present virtual time: it saved up nothing, and owes
-- nothing. So a tenant's first job waits for one turn of each other tenant at most.
local function virtual_time(kind)
  return tonumber(redis.call('HGET', key('virtual-time'), kind) or 0)
end

local function offer(job)
  redis.call('ZADD', key('claimable', job.kind, job.tenant), job.place or 0, job.id)
  if redis.call('ZSCORE', key('turns', job.kind), job.tenant) then return end
  local finish = tonumber(redis.call('ZSCORE', key('shares', job.kind), job.tenant) or 0)
  redis.call('ZADD', key('turns', job.kind), seconds(math.max(virtual_time(job.kind), finish)),
    job.tenant)
end

local function withdraw(job)
  redis.call('ZREM', key('claimable', job.kind, job.tenant), job.id)
  if redis.call('EXISTS', key('claimable', job.kind, job.tenant)) == 0 then
    redis.call('ZREM', key('turns', job.kind), job.tenant)
  end
end

-- Counts a claim against its tenant's share.
local function charge(job)
  local turns, shares = key('turns', job.kind), key('shares', job.kind)
  local virtual = virtual_time(job.kind)
  local start = tonumber(redis.call('ZSCORE', turns, job.tenant) or virtual)
  virtual = math.max(virtual, start)
  redis.call('HSET', key('virtual-time'), job.kind, seconds(virtual))
  withdraw(job)
  redis.call('ZADD', turns, 'XX', seconds(start + job.cost), job.tenant)
  redis.call('ZADD', shares, seconds(start + job.cost), job.tenant)
  redis.call('ZREMRANGEBYSCORE', shares, '-inf', seconds(virtual)) -- they owe nothing
end

local function move(job, state)
  redis.call('HSET', key('job', job.id), 'state', state)
  redis.call('ZREM', key('jobs', job.tenant, job.state), job.id)
  redis.call('ZADD', key('jobs', job.tenant, state), 0, job.id)
  redis.call('ZREM', key('queued', job.kind), job.id)
  redis.call('SREM', key('running'), job.id)
  redis.call('ZREM', key('leases', job.kind), job.id)
  job.state = state
end

-- Puts a job into its queue; notify_in: seconds until workers are notified again if none came.
local function enqueue(job, notify_in)
  move(job, 'queued')
  redis.call('HSET', key('job', job.id), 'queued_at', seconds(now), 'notified', 0)
  redis.call('HDEL', key('job', job.id), 'lease_until', 'worker')
  if redis.call('HSETNX', key('job', job.id), 'place', seconds(now)) == 1 then
    job.place = seconds(now)
  end
  redis.call('ZADD', key('queued', job.kind), seconds(now), job.id)
  redis.call('ZADD', key('wakeups'), seconds(now + notify_in), job.id)
  offer(job)
  state_event(job, 'queued')
end

-- The sets that a job is in for as long as it is there, beside jobs:<tenant>.
local function each_index(tenant, kind, uses, does)
  does(key('jobs', tenant, kind))
  for id in string.gmatch(uses or '', '%S+') do
    if string.sub(id, 1, 4) == 'con_' then does(key('jobs', tenant, id)) end
  end
end

local function each_use(job, does)
  for id in string.gmatch(job.uses or '', '%S+') do does(key('uses', job.tenant, id)) end
end

-- Puts the webhook of a finished job into the outbox.
local function add_webhook(job)
  if not job.webhook then return end
  redis.call('HSET', key('hook', job.id), 'url', job.webhook, 'tenant', job.tenant,
    'tries', 0, 'since', seconds(now), 'state', 'pending')
  redis.call('ZADD', key('hooks', job.tenant), 0, job.id)
  redis.call('ZADD', key('outbox'), seconds(now), job.id)
  redis.call('ZADD', key('outbox', job.tenant), seconds(now), job.id)
  redis.call('SADD', key('outbox-tenants'), job.tenant)
end

-- Takes a webhook out of the outbox; how its delivery ended stays as long as its job.
local function end_webhook(id, tenant, state)
  redis.call('HSET', key('hook', id), 'state', state)
  redis.call('ZREM', key('outbox'), id)
  redis.call('ZREM', key('outbox', tenant), id)
end

local function drop_webhook(id, tenant)
  end_webhook(id, tenant, '')
  redis.call('DEL', key('hook', id))
  redis.call('ZREM', key('hooks', tenant), id)
end

local function receiver_key(tenant, url)
  return key('receiver', tenant, string.match(url, '^%a+://([^/?#]*)') or '')
end

local function finish(job, state, err)
  move(job, state)
  withdraw(job)
  redis.call('HSET', key('job', job.id), 'finished_at', seconds(now))
  redis.call('HDEL', key('job', job.id), 'lease_until')
  if err then redis.call('HSET', key('job', job.id), 'error', err) end
  redis.call('ZREM', key('wakeups'), job.id)
  redis.call('SREM', key('open', job.tenant), job.id)
  redis.call('ZADD', key('finished'), seconds(now), job.id)
  redis.call('SADD', key('unjournaled'), job.id)
  each_use(job, function(k) redis.call('SREM', k, job.id) end)
  if job.concept and state ~= 'succeeded'
    and redis.call('HGET', key('concept', job.concept), 'state') == 'training' then
    redis.call('HSET', key('concept', job.concept), 'state', 'failed')
  end
  add_webhook(job)
  state_event(job, state, err)
  redis.call('EXPIRE', key('events', job.id), 86400)
end

-- One more request of a tenant in a sliding minute: this minute's count and, by the share of it
-- that the window still covers, the last one's. Answers: 1 if allowed, what is left, seconds until
-- the next minute, seconds until another try may do.
local function take_rate(tenant, limit)
  local window = 60
  local minute = math.floor(now / window)
  local gone = now / window - minute
  local this, last = key('rate', tenant, minute), key('rate', tenant, minute - 1)
  local count = tonumber(redis.call('GET', this) or 0)
  local former = tonumber(redis.call('GET', last) or 0)
  local used = count + former * (1 - gone)
  local reset = window * (1 - gone)
  if used + 1 > limit then
    local retry
    if count + 1 > limit then
      retry = reset + window * math.max(0, 1 - (limit - 1) / count)
    else
      retry = window * (1 - (limit - 1 - count) / former - gone)
    end
    return {0, 0, seconds(reset), seconds(math.max(retry, 0))}
  end
  redis.call('INCR', this)
  redis.call('EXPIRE', this, 2 * window)
  return {1, math.max(0, math.floor(limit - used - 1)), seconds(reset), '0'}
end

-- The first of `uses` that `tenant` does not have, but for the concept that the job makes.
local function missing_use(tenant, uses, concept)
  for _, id in ipairs(uses) do
    if id ~= concept then
      local owner
      if string.sub(id, 1, 4) == 'img_' then
        owner = redis.call('HGET', key('image', tenant, id), 'tenant')
      elseif string.sub(id, 1, 4) == 'job_' then -- an output of it is used
        owner = redis.call('HGET', key('job', id), 'tenant')
      else
        owner = redis.call('HGET', key('concept', id), 'tenant')
      end
      if owner ~= tenant then return id end
    end
  end
end

-- Notes that a job is part of a batch.
local function join_batch(batch, place, id, tenant)
  redis.call('HSET', key('job', id), 'batch', batch)
  redis.call('ZADD', key('batch', batch), place, id)
  redis.call('ZADD', key('batches', tenant), 0, batch)
end

-- Notes that a job of a batch is deleted; with its last one the batch is gone.
local function leave_batch(id, tenant)
  local batch = redis.call('HGET', key('job', id), 'batch')
  if not batch then return end
  redis.call('ZREM', key('batch', batch), id)
  if redis.call('EXISTS', key('batch', batch)) == 0 then
    redis.call('ZREM', key('batches', tenant), batch)
  end
end

-- Makes a job that is queued. made: its id, kind, body, cost, uses, and webhook, concept, batch.
local function make_job(made, tenant)
  redis.call('HSET', key('job', made.id), 'body', made.body, 'tenant', tenant,
    'kind', made.kind, 'state', 'queued', 'attempt', 0, 'handed_back', 0,
    'max_attempts', given.max_attempts, 'cost', made.cost, 'uses', table.concat(made.uses, ' '))
  for _, name in ipairs({'webhook', 'concept'}) do
    if made[name] then redis.call('HSET', key('job', made.id), name, made[name]) end
  end
  if made.batch then join_batch(made.batch, made.batch_place, made.id, tenant) end
  redis.call('ZADD', key('jobs', tenant), 0, made.id)
  redis.call('SADD', key('open', tenant), made.id)
  local job = load(made.id)
  each_index(tenant, job.kind, job.uses, function(k) redis.call('ZADD', k, 0, job.id) end)
  each_use(job, function(k) redis.call('SADD', k, made.id) end)
  enqueue(job, given.notify_after)
end

-- Wakes workers for jobs that were made just now. 1; 0 if that failed, as if the queue is no list:
-- the jobs are there, and the reconciler notifies of them.
local function notify()
  if not given.notify then return 1 end
  local answer = redis.pcall('LPUSH', given.notify.queue, unpack(given.notify.messages))
  return type(answer) == 'table' and answer.err and 0 or 1
end

-- What an idempotency key says before a job or a batch is made: nil if it may be made.
local function taken(idem)
  local entry = redis.call('HMGET', idem, 'fingerprint', 'token', 'job', 'batch')
  if not entry[1] then return nil end
  if entry[1] ~= given.idem.fingerprint then return {'conflict'} end
  if entry[3] then
    -- of a batch any job: its first may be deleted
    local id = entry[4] and redis.call('ZRANGE', key('batch', entry[4]), 0, 0)[1] or entry[3]
    if redis.call('EXISTS', key('job', id)) == 1 then return {'replayed', whole(id)} end
  elseif entry[2] ~= given.idem.token then
    return {'in-flight'}
  end
end
