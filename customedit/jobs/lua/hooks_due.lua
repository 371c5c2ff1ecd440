-- Takes webhooks that are due: of each tenant as many as its share has room for, and none for a
-- receiver that is left alone for now. Whoever takes one has `hold` seconds before it is due again.
local out = {}
for _, tenant in ipairs(redis.call('SRANDMEMBER', key('outbox-tenants'), 500)) do
  local outbox = key('outbox', tenant)
  local free = given.share - (given.in_flight[tenant] or 0)
  local ids = {}
  if redis.call('EXISTS', outbox) == 0 then
    redis.call('SREM', key('outbox-tenants'), tenant)
  elseif free > 0 then
    ids = redis.call('ZRANGEBYSCORE', outbox, '-inf', seconds(now), 'LIMIT', 0, free + 100)
  end
  for _, id in ipairs(ids) do
    if free < 1 or #out >= given.limit then break end
    local hook = redis.call('HMGET', key('hook', id), 'url', 'since')
    if not hook[1] then
      drop_webhook(id, tenant)
    else
      local receiver = receiver_key(tenant, hook[1])
      local state = redis.call('HMGET', receiver, 'failures', 'until')
      local failing = tonumber(state[1] or 0) >= given.failures
      if failing and tonumber(state[2]) > now then
        redis.call('ZADD', outbox, state[2], id)
      else
        if failing then -- one alone finds out whether it is back
          redis.call('HSET', receiver, 'until', seconds(now + given.hold))
        end
        redis.call('ZADD', outbox, seconds(now + given.hold), id)
        local tries = redis.call('HINCRBY', key('hook', id), 'tries', 1)
        redis.call('HSET', key('hook', id), 'tried_at', seconds(now))
        out[#out + 1] = {id, hook[1], tenant, tries, hook[2]}
        free = free - 1
      end
    end
  end
end
return out
