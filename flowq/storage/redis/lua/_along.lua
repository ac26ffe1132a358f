-- Item by item, in the words of storage/base.py: what follows an expansion, and what goes along with
-- the nodes in it. Fields of n:<run>, each with the index: 'f' what goes along with the nodes of that
-- expansion (first 4, own 4, count 4 each). The counts of what goes along are not kept: they are taken
-- from its parents when it is weighed. Of a bounded expansion, able:<run> has those that might begin,
-- were there a place (index of the expansion 4, own index 4).
local more_along

function alongs()
  if more_along then return more_along end
  local more_at = phases().more_at

  local function ties_of(r, o)
    if not o.ties then
      o.ties = {}
      local raw = call('HGET', r.n, 'f' .. pack('>I4', o.i)) or ''
      for at = 1, #raw, 12 do o.ties[#o.ties + 1] = {unpack_('>I4I4I4', raw, at)} end
    end
    return o.ties
  end

  -- A node of an expansion ended; one that is `done` has no record yet that says so.
  local function tell(r, o, i, done)
    if more_at(r, o).led == 0 then return end
    if done then
      r.won = r.won or {}
      r.won[i] = true
    end
    for _, tie in ipairs(ties_of(r, o)) do
      local first, own, count = tie[1], tie[2], tie[3]
      if i >= first and i < first + count then spread(r, own + i - first, ALONGSIDE, NONE) end
    end
  end

  -- An expansion begins that others may follow.
  local function tell_followers(r, x)
    if more_at(r, x).led > 0 then spread(r, x.i, TRAIL + EXPANDED, NONE) end
  end

  -- What an expansion says of its nodes: of, first, own, count.
  local function said_by(row)
    local more, said = phases().more_of(row), {}
    for k = 0, (more and more.along or 0) - 1 do
      said[k + 1] = {unpack_('>I4I4I4I4', row, more.ties + 16 * k)}
    end
    return said
  end

  local function set_ties(r, of, change)
    local o, field = node(r, of), 'f' .. pack('>I4', of)
    if not o then return end
    local raw = change(call('HGET', r.n, field) or '')
    if raw == '' then call('HDEL', r.n, field) else call('HSET', r.n, field, raw) end
    o.ties = nil
  end

  -- Lets nodes go along with others from now on.
  local function tie(r, row)
    for _, one in ipairs(said_by(row)) do
      set_ties(r, one[1], function(raw) return raw .. pack('>I4I4I4', one[2], one[3], one[4]) end)
    end
  end

  -- They are dropped.
  local function untie(r, row)
    for _, one in ipairs(said_by(row)) do
      set_ties(r, one[1], function(raw)
        local left = {}
        for at = 1, #raw, 12 do
          if unpack_('>I4', raw, at + 4) ~= one[3] then left[#left + 1] = sub(raw, at, at + 11) end
        end
        return table.concat(left)
      end)
    end
  end

  -- Whether a node goes along with nodes of other expansions.
  local function goes(r, o, x)
    return o and o.flags >= 160 and x.n > 0 and not has(x.flags, 64) and more_at(r, o).along > 0
  end

  -- Whom to blame for a parent that failed or is blocked, its cell written or not.
  local function blame_of(r, p)
    local i4, raw = pack('>I4', p), nil
    for k = #r.cells - 1, 1, -2 do
      if r.cells[k] == i4 then
        raw = r.cells[k + 1]
        break
      end
    end
    raw = raw or call('HGET', r.v, i4)
    if raw and has(byte(raw, 6), CULPRIT) then return (unpack_('>I4', raw, 27)) end
    return p
  end

  -- Takes the counts of a node from what its parents are.
  local function count_now(r, x)
    local row = row_of(r, x.i)
    local c, rd, e, ranges = unpack_('>I4I4I4I4', row, 20)
    local at = 42 + 8 * (c + rd + e)
    x.a, x.b, x.c, x.d, x.ready = 0, 0, 0, 0, 0
    for k = 0, ranges - 1 do
      local first, n = unpack_('>I4I4', row, at + 8 * k)
      for j = first, first + n - 1 do
        local parent = node(r, j)
        local state = r.won and r.won[j] and SUCCESS or parent and parent.state or WAITING
        if state == SUCCESS then x.a = x.a + 1
        elseif state == SKIPPED then x.c = x.c + 1
        elseif state == CANCELLED then x.d = x.d + 1
        elseif state > SUCCESS then
          x.b = x.b + 1
          if x.ready == 0 then x.ready = blame_of(r, j) + 1 end
        end
      end
    end
  end

  -- It might begin, but there is no place.
  local function set_able(r, o, x) call('ZADD', P .. 'able:' .. r.id, 0, pack('>I4I4', o.i, x.i)) end

  local function end_able(r, o)
    local i4 = pack('>I4', o.i)
    call('ZREMRANGEBYLEX', P .. 'able:' .. r.id, '[' .. i4, '[' .. i4 .. '\255\255\255\255')
  end

  -- Lets those begin that might, while there are places; gives what extras().fill does.
  local function fill(r, o, most, places, edges)
    local key, i4, looked = P .. 'able:' .. r.id, pack('>I4', o.i), 0
    while places[1] < most do
      if looked >= edges then return looked, false end
      local count = math.min(most - places[1], edges - looked)
      local able = call('ZRANGE', key, '[' .. i4, '[' .. i4 .. '\255\255\255\255', 'BYLEX', 'LIMIT', 0, count)
      if #able == 0 then return looked, true end
      call('ZREM', key, unpack(able))
      for _, member in ipairs(able) do
        local x = node(r, (unpack_('>I4', member, 5)))
        looked = looked + 1
        if x and x.state == WAITING then extras().weigh(r, o, x) end
      end
    end
    return looked, true
  end

  more_along = {
    blame_of = blame_of, count_now = count_now, end_able = end_able, fill = fill, goes = goes,
    set_able = set_able, tell = tell, tell_followers = tell_followers, tie = tie, untie = untie,
  }
  return more_along
end
