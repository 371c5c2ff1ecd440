-- A tenant's signing secrets: made when there is none; a new one leaves the old one valid a while.
local k = key('whsec', given.tenant)
local current = redis.call('HGET', k, 'current')
if not current then
  redis.call('HSET', k, 'current', given.fresh)
elseif given.rotate and current ~= given.fresh then
  redis.call('HSET', k, 'current', given.fresh, 'former', current,
    'former_until', seconds(now + given.overlap))
end
local found = redis.call('HMGET', k, 'current', 'former', 'former_until')
if found[2] and tonumber(found[3]) > now then return {found[1], found[2]} end
return {found[1]}
