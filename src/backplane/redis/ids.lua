-- Message ids, for the other scripts: this stands before each of them.

-- Whether this is an id.
local function is_id(text)
  return text and string.match(text, '^%d+%-%d+$') ~= nil
end

-- Its milliseconds and its number.
local function parts(id)
  local millis, number = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(millis or 0), tonumber(number or 0)
end

local function is_later(one, other)
  local millis, number = parts(one)
  local other_millis, other_number = parts(other)
  return millis > other_millis or (millis == other_millis and number > other_number)
end

