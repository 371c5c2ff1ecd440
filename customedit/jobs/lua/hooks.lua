-- The deliveries of a tenant's webhooks, of the newest jobs first: at most `limit` in `state` (any, if
-- it is left out), of at most `scan` looked at. Answers where to go on ('' at the end), then of each
-- the job's id, its hash, and when the next try is due (false: never). With `id` that one alone.
local function entry(id)
  local hash = redis.call('HGETALL', key('hook', id))
  return {id, hash, redis.call('ZSCORE', key('outbox', given.tenant), id)}
end
if given.id then
  if redis.call('HGET', key('hook', given.id), 'tenant') ~= given.tenant then return {''} end
  return {'', entry(given.id)}
end
local from = given.before and ('(' .. given.before) or '+'
local ids = redis.call('ZREVRANGEBYLEX', key('hooks', given.tenant), from, '-', 'LIMIT', 0, given.scan)
local out = {''}
for i, id in ipairs(ids) do
  local state = redis.call('HGET', key('hook', id), 'state')
  if state and (not given.state or state == given.state) then
    if #out > given.limit then
      out[1] = ids[i - 1]
      return out
    end
    out[#out + 1] = entry(id)
  end
end
if #ids == given.scan then out[1] = ids[#ids] end
return out
