-- Gives one instance the lease of a webhook, and keeps the id of the last message that was posted there.
--
-- KEYS[1] the webhook (hash): owner, until (ms since 1970), last
-- KEYS[2] the room's log (stream)        KEYS[3] the id of its newest message
-- ARGV    the instance, how long the lease lasts (ms), the last id that it has posted, if it has the lease already,
--         the hash's time to live (ms)
-- returns the last id, or nothing if another instance has the lease

local webhook, log, newest = KEYS[1], KEYS[2], KEYS[3]
local instance, posted = ARGV[1], ARGV[3]

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local owner, ends, last = unpack(redis.call('HMGET', webhook, 'owner', 'until', 'last'))
if owner and owner ~= instance and (tonumber(ends) or 0) > now then
  return false
end

-- If Redis lost the id, the instance that has the lease knows it. The first lease of all begins behind the newest
-- message.
if is_id(posted) and not (is_id(last) and is_later(last, posted)) then
  last = posted
elseif not is_id(last) then
  last = redis.call('GET', newest)
  if not is_id(last) then
    local entry = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
    last = entry and entry[1] or '0-0'
  end
end
redis.call('HSET', webhook, 'owner', instance, 'until', string.format('%d', now + ARGV[2]), 'last', last)
redis.call('PEXPIRE', webhook, ARGV[4])
return last
