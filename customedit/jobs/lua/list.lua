-- A part of a tenant's jobs, newest first: at most `limit` that match, of at most `scan` looked at.
-- Answers where to go on ('' at the end), then the records.
local index = given.state and key('jobs', given.tenant, given.state) or key('jobs', given.tenant)
local from = given.before and ('(' .. given.before) or '+'
local ids = redis.call('ZREVRANGEBYLEX', index, from, '-', 'LIMIT', 0, given.scan)
local out = {''}
for i, id in ipairs(ids) do
  local job = load(id)
  local fits = job and (not given.kind or job.kind == given.kind)
    and (not given.concept or job.concept == given.concept
      or string.find(' ' .. job.uses .. ' ', ' ' .. given.concept .. ' ', 1, true))
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
