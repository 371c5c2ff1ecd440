-- Claimed jobs to clean up after. Each is put off first: one that cannot be cleaned up keeps no
-- other waiting.
local due = redis.call('ZRANGEBYSCORE', key('cleanup'), '-inf', seconds(now),
  'LIMIT', 0, given.limit)
for _, entry in ipairs(due) do
  redis.call('ZADD', key('cleanup'), seconds(now + given.delay), entry)
end
return due
