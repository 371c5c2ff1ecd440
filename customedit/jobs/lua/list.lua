-- A part of a tenant's jobs, newest first: at most `limit` that match, of at most `scan` looked at.
-- Answers where to go on ('' at the end), then the records. Of state and kind the one that fewer
-- jobs have is looked through.
local all = key('jobs', given.tenant)
local index = given.state and key('jobs', given.tenant, given.state) or all
if given.kind then
  local indexed = key('indexed', given.tenant)
  if redis.call('EXISTS', indexed) == 0 then -- once for a tenant
    for _, id in ipairs(redis.call('ZRANGE', all, 0, -1)) do
      local kind = redis.call('HGET', key('job', id), 'kind')
      if kind then redis.call('ZADD', key('jobs', given.tenant, kind), 0, id) end
    end
    redis.call('SET', indexed, 1)
  end
  local of_kind = key('jobs', given.tenant, given.kind)
  if redis.call('ZCARD', of_kind) < redis.call('ZCARD', index) then index = of_kind end
end
local from = given.before and ('(' .. given.before) or '+'
local ids = redis.call('ZREVRANGEBYLEX', index, from, '-', 'LIMIT', 0, given.scan)
local out = {''}
for i, id in ipairs(ids) do
  local job = redis.call('HMGET', key('job', id), 'kind', 'state', 'concept', 'uses')
  local fits = job[1] and (not given.kind or job[1] == given.kind)
    and (not given.state or job[2] == given.state)
    and (not given.concept or job[3] == given.concept
      or string.find(' ' .. (job[4] or '') .. ' ', ' ' .. given.concept .. ' ', 1, true))
  if fits then
    if #out > given.limit then
      out[1] = ids[i - 1]
      return out
    end
    out[#out + 1] = whole(id)
  end
end
if #ids == given.scan then out[1] = ids[#ids] end
return out
