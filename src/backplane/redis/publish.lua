-- Says one thing in one room: in one step the log takes it, everyone hears it, and its ref is noted.
-- Were these three commands, a subscriber could hear what the log does not hold, two senders could
-- be heard in another order than they are stored, and a retry could be stored twice.
--
-- KEYS[1] the room's log (stream)        KEYS[2] the id of its newest message
-- KEYS[3] the ref's key, only if the sender gave a ref
-- ARGV    how to publish (in a cluster SPUBLISH), channel, from, text, via, messages to keep, log's time to
--         live (ms), the newest id's (ms), ref's (ms), leap (ms)
--
-- The leap is 0, but for a while after Sentinel made another server the master. The old one may go on giving ids
-- away, so the new one's lie that much ahead of the clock: two messages never have one id.
--
-- returns {id, 0} for a new message, {id, 1} if the ref is that of this message, {id, 2} if it is that of another
-- text, as long as the log has that.

local log, newest, ref = KEYS[1], KEYS[2], KEYS[3]
local publish, channel, from, text, via, keep = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]

if ref then
  local id = redis.call('GET', ref)
  if id then
    -- A log that is something else, or has no such id, tells nothing.
    local said = redis.pcall('XRANGE', log, id, id)[1]
    return {id, said and said[2][4] ~= text and 2 or 1}
  end
end

-- The newest id outlives the log, so that after a room was quiet for long its next message still
-- names its predecessor. An entry that Hubbub did not write is nobody's predecessor, and where the newest id
-- was lost or overwritten, the log's own last entry tells it.
local prev = redis.call('GET', newest)
if not is_id(prev) then
  local last = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
  prev = last and last[2][7] == 'prev' and last[1] or ''
end

local leap = tonumber(ARGV[10])

local entry = {'from', from, 'text', text, 'via', via, 'prev', prev}
local id
if leap == 0 then
  id = redis.call('XADD', log, 'NOMKSTREAM', 'MAXLEN', '~', keep, '*', unpack(entry))
  -- The newest id may be ahead of the log (lost.lua). Milliseconds have 13 digits until the year 2286.
  if id and string.sub(id, 1, 13) <= string.sub(prev, 1, 13) and not is_later(id, prev) then
    redis.call('XDEL', log, id)
    id = nil
  end
end
if not id then
  -- A log that begins anew must not give an id of the old one away again: it begins at the
  -- microsecond, or behind the newest id if the clock went back.
  local time = redis.call('TIME')
  local millis, number = time[1] * 1000 + math.floor(time[2] / 1000) + leap, time[2] % 1000
  local last = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
  local floor = last and is_later(last[1], prev) and last[1] or prev
  local last_millis, last_number = parts(floor)
  if millis < last_millis or (millis == last_millis and number <= last_number) then
    millis, number = last_millis, last_number + 1
    -- Behind an import a number may be larger than Lua can count.
    if number >= 2 ^ 53 then
      millis, number = millis + 1, 0
    end
  end
  local place = string.format('%d-%d', millis, number)
  id = redis.call('XADD', log, 'MAXLEN', '~', keep, place, unpack(entry))
end
redis.call('PEXPIRE', log, ARGV[7])
redis.call('SET', newest, id, 'PX', ARGV[8])
redis.call(publish, channel, table.concat({'m', id, prev, via, from, text}, '\n'))
if ref then
  redis.call('SET', ref, id, 'PX', ARGV[9])
end
return {id, 0}
