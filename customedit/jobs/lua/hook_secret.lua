-- A tenant's signing secrets. With `fresh`: it becomes the current one, and the one before stays
-- valid for `overlap` seconds. Answers: current, when it was made, the one before if still valid.
local k = key('whsec', given.tenant)
if given.fresh then
  local current = redis.call('HGET', k, 'current')
  if current and current ~= given.fresh then
    redis.call('HSET', k, 'former', current, 'former_until', seconds(now + given.overlap))
  end
  if current ~= given.fresh then
    redis.call('HSET', k, 'current', given.fresh, 'made_at', given.made_at and seconds(given.made_at) or seconds(now))
  end
end
local found = redis.call('HMGET', k, 'current', 'made_at', 'former', 'former_until')
if not found[1] then return false end
if found[3] and tonumber(found[4]) > now then return {found[1], found[2], found[3]} end
return {found[1], found[2]}
