#!lua
-- wait: note who waits for the end of tasks, nodes or runs.
-- Keys    1 sessions (zset)
-- Args    1 now  2 token of the waiting thread (16 bytes)  3 1 to note, 0 to forget  then the ids
-- Gives   1 if one has ended or is not known, else 0
-- Cost    O(ids)
-- Repeat  safe
-- @include _base
-- @include _ended
local token, w = ARGV[2], P .. 'wait'
if ARGV[3] == '0' then
  for k = 4, #ARGV do
    local tokens = call('HGET', w, ARGV[k])
    if tokens then
      local left = {}
      for at = 1, #tokens, 16 do
        local t = sub(tokens, at, at + 15)
        if t ~= token then left[#left + 1] = t end
      end
      if #left == 0 then call('HDEL', w, ARGV[k]) else call('HSET', w, ARGV[k], table.concat(left)) end
    end
  end
  call('DEL', P .. 'a:' .. token)
  return 0
end
for k = 4, #ARGV do
  local id = ARGV[k]
  local run = P .. 'c:' .. sub(id, 1, 16)
  if #id == 16 then
    if call('HEXISTS', P .. 'm', id) == 0 then
      local state = call('GETRANGE', run, 0, 0)
      if state == '' or byte(state) >= SUCCESS then return 1 end
    end
  else
    local at = unpack_('>I4', id, 17) * 32
    local state = call('GETRANGE', run, at, at)
    if state == '' or byte(state) >= SUCCESS then return 1 end
  end
end
call('DEL', P .. 'a:' .. token)
for k = 4, #ARGV do
  local tokens = call('HGET', w, ARGV[k]) or ''
  local there = false
  for at = 1, #tokens, 16 do
    if sub(tokens, at, at + 15) == token then there = true end
  end
  if not there then call('HSET', w, ARGV[k], tokens .. token) end
end
return 0
