-- What all job scripts share; it stands in front of each. KEYS is unused: the keys follow from the
-- namespace, so these scripts want one Redis, not a cluster. Arguments come as one JSON document.
--
--   <ns>:job:<id>                 hash: body (JSON of what never changes) and what changes
--   <ns>:jobs:<tenant>[:<state>]  sorted set, all scores 0: ids in the order of their making
--   <ns>:open:<tenant>            set: queued and running
--   <ns>:queued:<kind>            sorted set: queued_at
--   <ns>:running                  set
--   <ns>:ring                     sorted set: when the job's bell is to be rung (again)
--   <ns>:finished                 sorted set: finished_at
--   <ns>:unjournaled              set: finished, final.json not yet known to be written
--   <ns>:uses:<tenant>:<id>       set: unfinished jobs that need this image or concept
--   <ns>:events:<id>              stream
--   <ns>:doomed, <ns>:gone        folders whose owner is deleted: set (to sweep), sorted set (when swept)
--   <ns>:life                     hash: of which life of Redis the front ends' files speak
--   <ns>:outbox, <ns>:hook:<id>   webhooks to deliver: sorted set (when), hash (what)
local ns = ARGV[1]
local given = cjson.decode(ARGV[2])

local function key(...) return ns .. ':' .. table.concat({...}, ':') end
local function seconds(x) return string.format('%.6f', x) end -- Lua's own format drops digits

local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1e6

local KNOWN = {'tenant', 'kind', 'state', 'attempt', 'handed_back', 'max_attempts',
  'cancel_requested', 'lease_until', 'token', 'webhook', 'concept', 'uses', 'rings'}

local function load(id)
  local values = redis.call('HMGET', key('job', id), unpack(KNOWN))
  if not values[1] then return nil end
  local job = {id = id}
  for i, name in ipairs(KNOWN) do job[name] = values[i] end
  for _, name in ipairs({'attempt', 'handed_back', 'max_attempts', 'rings'}) do
    job[name] = tonumber(job[name] or 0)
  end
  job.lease_until = tonumber(job.lease_until or 0)
  return job
end

-- Whether the owner of a folder is deleted: the folder waits for the sweeper, or is gone.
local function deleted(prefix)
  return redis.call('SISMEMBER', key('doomed'), prefix) == 1
    or redis.call('ZSCORE', key('gone'), prefix) ~= false
end

-- What changes whenever Redis may have forgotten something: it was started anew, another took over,
-- or it made room. nil: it does not say.
local function told()
  local found = {}
  for section, name in pairs({server = 'run_id', replication = 'master_replid',
    stats = 'evicted_keys'}) do
    local info = redis.pcall('INFO', section)
    local value = type(info) == 'string' and string.match(info, name .. ':(%w+)')
    if not value then return nil end
    found[#found + 1] = name .. '=' .. value
  end
  table.sort(found)
  return table.concat(found, ' ')
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

local function say_state(job, state, err)
  local data = '{"state":"' .. state .. '","attempt":' .. string.format('%d', job.attempt)
  if err then data = data .. ',"error":' .. err end
  event(job.id, 'state', data .. '}')
end

local function move(job, state)
  redis.call('HSET', key('job', job.id), 'state', state)
  redis.call('ZREM', key('jobs', job.tenant, job.state), job.id)
  redis.call('ZADD', key('jobs', job.tenant, state), 0, job.id)
  redis.call('ZREM', key('queued', job.kind), job.id)
  redis.call('SREM', key('running'), job.id)
  job.state = state
end

-- Puts a job into its queue; ring_in: seconds until the reconciler rings if nobody came.
local function enqueue(job, ring_in)
  move(job, 'queued')
  redis.call('HSET', key('job', job.id), 'queued_at', seconds(now), 'rings', 0)
  redis.call('HDEL', key('job', job.id), 'lease_until', 'worker')
  redis.call('ZADD', key('queued', job.kind), seconds(now), job.id)
  redis.call('ZADD', key('ring'), seconds(now + ring_in), job.id)
  say_state(job, 'queued')
end

local function each_use(job, does)
  for id in string.gmatch(job.uses or '', '%S+') do does(key('uses', job.tenant, id)) end
end

-- Puts the news of a job's end into the outbox.
local function tell(job)
  if not job.webhook then return end
  redis.call('HSET', key('hook', job.id), 'url', job.webhook, 'tenant', job.tenant,
    'tries', 0, 'since', seconds(now))
  redis.call('ZADD', key('outbox'), seconds(now), job.id)
end

local function finish(job, state, err)
  move(job, state)
  redis.call('HSET', key('job', job.id), 'finished_at', seconds(now))
  redis.call('HDEL', key('job', job.id), 'lease_until')
  if err then redis.call('HSET', key('job', job.id), 'error', err) end
  redis.call('ZREM', key('ring'), job.id)
  redis.call('SREM', key('open', job.tenant), job.id)
  redis.call('ZADD', key('finished'), seconds(now), job.id)
  redis.call('SADD', key('unjournaled'), job.id)
  each_use(job, function(k) redis.call('SREM', k, job.id) end)
  if job.concept and state ~= 'succeeded'
    and redis.call('HGET', key('concept', job.concept), 'state') == 'training' then
    redis.call('HSET', key('concept', job.concept), 'state', 'failed')
  end
  tell(job)
  say_state(job, state, err)
  redis.call('EXPIRE', key('events', job.id), 86400)
end
