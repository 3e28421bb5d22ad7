-- Looks whether the log still has a message that this instance acknowledged before a failover. A master that is
-- replaced may have taken messages that its replica never got. Instances that did not hear them cannot find
-- that by the chain, so the chain is broken here: the newest id becomes one that the log does not have. The next
-- message then names it as its predecessor, and whoever resumes does not find it.
--
-- KEYS[1] the room's log (stream)        KEYS[2] the id of its newest message
-- ARGV    how to publish (in a cluster SPUBLISH), channel, the message's id, the newest id's time to live (ms)
-- returns whether it is lost: 0 or 1

local log, newest = KEYS[1], KEYS[2]
local publish, channel, id = ARGV[1], ARGV[2], ARGV[3]

local function is_later(one, other)
  local millis, number = string.match(one, '^(%d+)-(%d+)$')
  local other_millis, other_number = string.match(other, '^(%d+)-(%d+)$')
  millis, other_millis = tonumber(millis), tonumber(other_millis)
  return millis > other_millis or (millis == other_millis and tonumber(number) > tonumber(other_number))
end

local first = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
-- A log that begins later, or is gone as a whole, tells nothing about this message; instances find that by the chain.
if not first or not is_later(id, first[1]) or redis.call('XRANGE', log, id, id)[1] then
  return 0
end
local before = redis.call('XREVRANGE', log, '(' .. id, '-', 'COUNT', 1)[1][1]
local last = redis.call('GET', newest)
if not (last and string.match(last, '^%d+%-%d+$')) then
  last = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1][1]
end
local mark = id
if not is_later(id, last) then
  local millis, number = string.match(last, '^(%d+)-(%d+)$')
  mark = string.format('%s-%d', millis, number + 1)
end
redis.call('SET', newest, mark, 'PX', ARGV[4])
redis.call(publish, channel, table.concat({'g', before, last, mark}, '\n'))
return 1
