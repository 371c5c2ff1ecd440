-- Takes a lock that is free or extends one that `owner` holds. 1: `owner` holds it now.
local holder = redis.call('GET', key(given.name))
if holder and holder ~= given.owner then return 0 end
redis.call('SET', key(given.name), given.owner, 'PX', given.hold_ms)
return 1
