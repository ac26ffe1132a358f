-- What every script begins with. KEYS[1] is "{name}:L": it routes the call to the store's slot, and
-- all other keys are made from its prefix (keys.py says what each is). ARGV[1] is the time in ms, or
-- 0 for the server's own.
local call, byte, sub = redis.call, string.byte, string.sub
local pack, unpack_ = struct.pack, struct.unpack
local P = sub(KEYS[1], 1, -2)

local now = tonumber(ARGV[1])
if now == 0 then
  local t = call('TIME')
  now = t[1] * 1000 + math.floor(t[2] / 1000)
end

-- states.py
local WAITING, SCHEDULED, HELD, QUEUED, RUNNING, EXPANDED = 0, 1, 2, 3, 4, 5
local SUCCESS, FAILED, BLOCKED, SKIPPED, CANCELLED = 6, 7, 8, 9, 10
-- flags of a cell (message.py), bits of a node (plan.py)
local EMPTY, CULPRIT, TEMPLATE = 16, 32, 64
local NONE = 4294967295
local PAGE = 500
-- unpack() of more values than this is an error
local MANY = 4000

-- Somebody may wait for this id, or for this node of a run; for a move of it where "m" is behind its id.
local tell

local function has(bits, bit) return bits % (bit + bit) >= bit end

-- Calls a command with any number of arguments behind its key, in pieces.
local function many(command, key, args)
  if #args <= MANY then return call(command, key, unpack(args)) end
  local last
  for i = 1, #args, MANY do
    last = call(command, key, unpack(args, i, math.min(i + MANY - 1, #args)))
  end
  return last
end
