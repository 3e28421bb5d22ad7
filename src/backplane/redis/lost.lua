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
local before = redis.call('XREVRANGE', log, '(' .. id, '-', 'COUNT', 1)[1][1]
local last = redis.call('GET', newest)
if not is_id(last) then
  last = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1][1]
end
local mark = last
if is_later(id, last) then
  mark = id
else
  local next
  for _, entry in ipairs(redis.call('XRANGE', log, '(' .. id, '+', 'COUNT', 128)) do
    if entry[2][7] == 'prev' then
      next = entry
      break
    end
  end
  -- The chain is broken there already: at the end, or this id was made for that.
  if not next or next[2][8] == id then
    return 0
  end
end
-- An id that the old master has not given to any message: a member that heard this message there must not take the
-- chain for whole.
local millis, number = parts(mark)
mark = string.format('%d-%d', millis, number + 1000000)
redis.call('SET', newest, mark, 'PX', ARGV[4])
redis.call(publish, channel, table.concat({'g', before, last, mark}, '\n'))
return 1
