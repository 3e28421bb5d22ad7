-- Says one thing in one room: in one step the log takes it, everyone hears it, and its ref is noted.
-- Were these three commands, a subscriber could hear what the log does not hold, two senders could
-- be heard in another order than they are stored, and a retry could be stored twice.
--
-- KEYS[1] the room's log (stream)        KEYS[2] the ref's key, only if the sender gave a ref
-- ARGV    channel, from, text, via, messages to keep, log's time to live (ms), ref's (ms)
-- returns {id, duplicate as 0 or 1}

local log, ref = KEYS[1], KEYS[2]
local channel, from, text, via = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

if ref then
  local id = redis.call('GET', ref)
  if id then
    return {id, 1}
  end
end

local last = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
local prev, place = '', '*'
if last then
  prev = last[1]
else
  -- A log that begins anew, after a FLUSHALL say, must not give an id of the old one away again,
  -- as it would within the same millisecond: so it begins at the microsecond.
  local time = redis.call('TIME')
  place = string.format('%d-%d', time[1] * 1000 + math.floor(time[2] / 1000), time[2] % 1000)
end
local id = redis.call('XADD', log, 'MAXLEN', '~', ARGV[5], place,
  'from', from, 'text', text, 'via', via, 'prev', prev)
redis.call('PEXPIRE', log, ARGV[6])
redis.call('PUBLISH', channel, table.concat({'m', id, prev, via, from, text}, '\n'))
if ref then
  redis.call('SET', ref, id, 'PX', ARGV[7])
end
return {id, 0}
