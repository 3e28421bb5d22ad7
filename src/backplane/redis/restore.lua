-- Puts messages of another time or place into one room's log, with the ids and the chain that they have. They must
-- come after all that the room has. Nobody is told: they are past.
--
-- KEYS[1] the room's log (stream)        KEYS[2] the id of its newest message
-- ARGV    log's time to live (ms), the newest id's (ms); and of each message: id, author, text, predecessor
-- returns 1, or 0 if the room has a later message, and then nothing is done

local log, newest = KEYS[1], KEYS[2]

local first = ARGV[3]
local last, known = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1], redis.call('GET', newest)
if (last and not is_later(first, last[1])) or (is_id(known) and not is_later(first, known)) then
  return 0
end
for index = 3, #ARGV, 4 do
  local id, from, text, prev = ARGV[index], ARGV[index + 1], ARGV[index + 2], ARGV[index + 3]
  redis.call('XADD', log, id, 'from', from, 'text', text, 'via', '', 'prev', prev)
end
redis.call('SET', newest, ARGV[#ARGV - 3], 'PX', ARGV[2])
redis.call('PEXPIRE', log, ARGV[1])
return 1
