-- One request under an API key: the key's record and when it was used last (false: there is no such
-- key, or the secret is another), then what take_rate answers for its tenant. A request whose key
-- is wrong, revoked or expired is not counted. The hash is of 256 random bits: how long its comparison
-- takes tells nothing that one could search with.
local k = key('key', given.id)
local found = redis.call('HMGET', k, 'record', 'last_used_at')
if not found[1] then return {false} end
local record = cjson.decode(found[1])
local function set(value) return value ~= nil and value ~= cjson.null end
if record.hash ~= given.hash or set(record.revoked_at)
  or (set(record.expires_at) and now >= record.expires_at) then
  return {false}
end
if not found[2] or now - tonumber(found[2]) >= given.used_every then
  redis.call('HSET', k, 'last_used_at', string.format('%.3f', now))
end
return {found[1], found[2], unpack(take_rate(record.tenant, given.limit))}
