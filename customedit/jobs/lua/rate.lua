-- Counts one request of a tenant, see take_rate.
return take_rate(given.tenant, given.limit)
