-- A part of a tenant's jobs, newest first: at most `limit` that match, of at most `scan` looked at.
-- Answers where to go on ('' at the end), then the records. Of state, kind and concept the one that
-- fewest jobs have is looked through.
local index = key('jobs', given.tenant)
if (given.kind or given.concept) and redis.call('EXISTS', key('indexed', given.tenant)) == 0 then
  for _, id in ipairs(redis.call('ZRANGE', index, 0, -1)) do -- once for a tenant
    local job = redis.call('HMGET', key('job', id), 'kind', 'uses')
    if job[1] then
      each_index(given.tenant, job[1], job[2], function(k) redis.call('ZADD', k, 0, id) end)
    end
  end
  redis.call('SET', key('indexed', given.tenant), 1)
end
for _, what in ipairs({'state', 'kind', 'concept'}) do
  local narrower = given[what] and key('jobs', given.tenant, given[what])
  if narrower and redis.call('ZCARD', narrower) < redis.call('ZCARD', index) then
    index = narrower
  end
end
local from = given.before and ('(' .. given.before) or '+'
local out, looked, last = {''}, 0, nil
local step = given.limit + 1 -- enough where all that the index has fit; then more and more
while looked < given.scan do
  step = math.min(step, given.scan - looked)
  local ids = redis.call('ZREVRANGEBYLEX', index, from, '-', 'LIMIT', 0, step)
  for _, id in ipairs(ids) do
    local job = redis.call('HMGET', key('job', id), 'kind', 'state', 'concept', 'uses')
    local fits = job[1] and (not given.kind or job[1] == given.kind)
      and (not given.state or job[2] == given.state)
      and (not given.concept or job[3] == given.concept
        or string.find(' ' .. (job[4] or '') .. ' ', ' ' .. given.concept .. ' ', 1, true))
    if fits then
      if #out > given.limit then
        out[1] = last
        return out
      end
      out[#out + 1] = whole(id)
    end
    last = id
  end
  looked = looked + #ids
  if #ids < step then return out end -- there are no more
  from, step = '(' .. last, 4 * step
end
out[1] = last or ''
return out
