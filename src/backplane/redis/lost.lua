-- Looks whether the log still has a message that this instance acknowledged before a failover. A master that is
-- replaced may have taken messages that its replica never got. Instances that did not hear them cannot find
-- that by the chain, so the chain is broken here: the newest id becomes one that no message has. The next message then
-- names it as its predecessor, and whoever resumes does not find it.
--
-- KEYS[1] the room's log (stream)        KEYS[2] the id of its newest message
-- ARGV    how to publish (in a cluster SPUBLISH), channel, the message's id, the newest id's time to live (ms)
-- returns whether it is lost: 0 or 1

local log, newest = KEYS[1], KEYS[2]
local publish, channel, id = ARGV[1], ARGV[2], ARGV[3]

local first = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
-- A log that begins later, or is gone as a whole, tells nothing about this message; instances find that by the chain.
if not first or not is_later(id, first[1]) or redis.call('XRANGE', log, id, id)[1] then
  return 0
end
local before = redis.call('XREVRANGE', log, '(' .. id, '-', 'COUNT', 1)[1]
local last = redis.call('GET', newest)
if not is_id(last) then
  last = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1][1]
end
-- Where the chain is broken behind this place already, nobody gets past it unnoticed: this id, or another one, was asked
-- for before; or it is the newest id that this was made for.
local some = 128
local later = redis.call('XRANGE', log, '(' .. id, '+', 'COUNT', some)
local link
for _, entry in ipairs(later) do
  if entry[2][7] == 'prev' then
    local prev = entry[2][8]
    if link and prev ~= link or not link and not is_later(id, prev) then
      return 0
    end
    link = entry[1]
  end
end
if not link and before[2][7] == 'prev' then
  link = before[1]
end
if link and link ~= last and #later < some then
  return 0
end
local mark = is_later(id, last) and id or last
-- An id that the old master has not given to any message: a member that heard this message there must not take the
-- chain for whole.
local millis, number = parts(mark)
mark = string.format('%d-%d', millis, number + 1000000)
redis.call('SET', newest, mark, 'PX', ARGV[4])
redis.call(publish, channel, table.concat({'g', before[1], last, mark}, '\n'))
return 1
