# Prints every variable of every frame at each capture, for comparison.
import struct
import gdb

gdb.execute("set pagination off")
gdb.execute("set print thread-events off")
gdb.execute("set breakpoint pending on")
LIMIT = 64
capture = 0


def scalar(value, kind, size):
    if kind == gdb.TYPE_CODE_FLT:
        return struct.pack("<f" if size == 4 else "<d", float(value))
    return (int(value) & ((1 << (size * 8)) - 1)).to_bytes(size, "little")


def gather(value, out, base):
    ty = value.type.strip_typedefs()
    if value.is_optimized_out:
        raise ValueError("optimized out")
    if ty.code in (gdb.TYPE_CODE_STRUCT, gdb.TYPE_CODE_UNION):
        for field in ty.fields():
            if hasattr(field, "bitpos"):
                gather(value[field], out, base + field.bitpos // 8)
    elif ty.code == gdb.TYPE_CODE_ARRAY:
        low, high = ty.range()
        for at in range(low, high + 1):
            gather(value[at], out, base + (at - low) * ty.target().sizeof)
    elif ty.sizeof:
        raw = scalar(value, ty.code, ty.sizeof)
        out[base:base + ty.sizeof] = raw


def raw_bytes(value):
    size = min(value.type.sizeof, LIMIT)
    if value.address is not None:
        return bytes(gdb.selected_inferior().read_memory(value.address, size))
    out = bytearray(value.type.sizeof)
    gather(value, out, 0)
    return bytes(out[:LIMIT])


def state(value):
    if value.is_optimized_out:
        return "optimized", ""
    try:
        return "real", raw_bytes(value).hex()
    except ValueError:
        return "partial", ""
    except gdb.error as error:
        text = str(error)
        return ("partial" if "optimized out" in text or "synthetic pointer" in text else "error"), ""


def dump():
    frame = gdb.newest_frame()
    at = -1
    while frame is not None and frame.is_valid():
        if at >= 0:
            print("GFRAME\t%d\t%d\t%s" % (capture, at, frame.name()))
            try:
                block = frame.block()
            except RuntimeError:
                block = None
            while block is not None:
                for symbol in block:
                    if symbol.is_variable or symbol.is_argument:
                        try:
                            kind, raw = state(symbol.value(frame))
                        except (gdb.error, RuntimeError) as error:
                            kind, raw = "error", ""
                        print("GVAR\t%d\t%d\t%s\t%d\t%s\t%s" % (capture, at, symbol.name, symbol.line, kind, raw))
                if block.function is not None:
                    break
                block = block.superblock
        at += 1
        frame = frame.older()


gdb.execute("break corpus_mark")
gdb.execute("run")
while True:
    try:
        if gdb.selected_thread() is None:
            break
        dump()
    except gdb.error as error:
        print("GERROR\t%d\t%s" % (capture, error))
    capture += 1
    try:
        gdb.execute("continue")
    except gdb.error:
        break
gdb.execute("quit")
