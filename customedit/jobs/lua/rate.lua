-- One more request of a tenant in a sliding minute: this minute's count and, by the share of it
-- that the window still covers, the last one's. Answers: 1 if allowed, what is left, seconds until
-- the next minute, seconds until another try may do.
local window = 60
local minute = math.floor(now / window)
local gone = now / window - minute
local this, last = key('rate', given.tenant, minute), key('rate', given.tenant, minute - 1)
local count = tonumber(redis.call('GET', this) or 0)
local former = tonumber(redis.call('GET', last) or 0)
local used = count + former * (1 - gone)
local reset = window * (1 - gone)
if used + 1 > given.limit then
  local retry
  if count + 1 > given.limit then
    retry = reset + window * math.max(0, 1 - (given.limit - 1) / count)
  else
    retry = window * (1 - (given.limit - 1 - count) / former - gone)
  end
  return {0, 0, seconds(reset), seconds(math.max(retry, 0))}
end
redis.call('INCR', this)
redis.call('EXPIRE', this, 2 * window)
return {1, math.max(0, math.floor(given.limit - used - 1)), seconds(reset), '0'}
