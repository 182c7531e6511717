"""A program that behaves as esorex does, for ``muse_bias`` well or badly, in milliseconds.

``FAKE_ESOREX`` names what it does; a file of that name plus ``.pid`` beside it tells which process hung.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PARAMETERS = ("nifu", "ifu1", "ifu2", "overscan", "ovscreject", "ovscsigma", "combine", "lsigma", "hsigma", "merge")
VERSION = "9.8.7"
DEED = "FAKE_ESOREX"


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, deed: str = "works") -> dict[str, str]:
    """Put the program on the PATH and its recipes into a folder; return the settings that find them."""
    program, recipes = folder / "bin" / "esorex", folder / "plugins"
    (recipes / f"muse-{VERSION}").mkdir(parents=True)
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    do(monkeypatch, deed)
    return {"recipe_folder": str(recipes)}


def do(monkeypatch: pytest.MonkeyPatch, deed: str) -> None:
    """Let it behave so from now on."""
    monkeypatch.setenv(DEED, deed)


def main(arguments: list[str]) -> int:
    """Answer a command line of esorex."""
    options = dict(item[2:].split("=", 1) for item in arguments if item.startswith("--") and "=" in item)
    if "--params" in arguments:
        sys.stdout.write("Caller Parameters :\n\n  help : FALSE\n\nRecipe Parameters :\n\n")
        sys.stdout.writelines(f"  {name:<22}: \n" for name in PARAMETERS)
        return 0
    if unknown := [name for name in options if name not in {*PARAMETERS, "recipe-dir", "log-level", "suppress-prefix"}]:
        sys.stderr.write(f"12:00:00 [ ERROR ] esorex: Unknown option {unknown[0]}\n")
        return 255
    sof = Path(arguments[-1])
    if "muse_scibasic" in arguments:
        return _write_pixels(int(options["nifu"]), sof)
    if "muse_twilight" in arguments:
        return _write_cube(sof, options)
    return _run(os.environ[DEED], int(options["nifu"]), sof, options)


def _run(deed: str, channel: int, sof: Path, options: dict[str, str]) -> int:
    sys.stdout.write("12:00:00 [ INFO  ] muse_bias: MUSE Instrument Pipeline\n")
    match deed:
        case "fails":
            begin = "12:00:00 [ ERROR ] muse_bias: [tid=000]"
            sys.stderr.write(
                f"{begin} The level is 7 adu\n"
                f"{begin} Dumping the 1 most recent error(s) out of a total of 1 errors:\n"
                f"{begin}   [1/1] 'Illegal input' (1) at muse_bias_compute:muse_bias.c:1\n"
                "12:00:00 [ ERROR ] esorex: [tid=000] Execution of recipe 'muse_bias' failed, status = -1\n"
            )
            return 255
        case "crashes":
            sys.stderr.write("munmap_chunk(): invalid pointer\n")
            sys.stderr.flush()
            os.abort()
        case "is killed":
            os.kill(os.getpid(), 9)
        case "lacks memory":
            sys.stderr.write("CxLib-ERROR **: cxmemory.c:304: failed to allocate 71639040 bytes\naborting...\n")
            sys.stderr.flush()
            os.abort()
        case "makes nothing":
            return 0
        case "hangs":
            Path(os.environ[DEED + "_PIDS"]).write_text(f"{os.getpid()} {subprocess.Popen(['sleep', '600']).pid}")
            os.wait()
    _write_bias(deed, channel, sof, options)
    sys.stdout.write("12:00:01 [WARNING] muse_bias: [tid=000] It is warm.\n" * 2)
    return 0


def _write_bias(deed: str, channel: int, sof: Path, options: dict[str, str]) -> None:
    """Write a MASTER_BIAS as ESO's recipe does: the mean of the frames."""
    import numpy as np
    from astropy.io import fits

    lines = [line.split() for line in sof.read_text().splitlines()]
    raws = [path for path, tag in lines if tag == "BIAS"]
    name = f"CHAN{channel:02d}"
    output = fits.getheader(raws[0], name)
    margin = output["ESO DET OUT1 PRSCX"]
    rows, columns = (
        np.r_[margin : margin + length, length + 3 * margin : 2 * length + 3 * margin]
        for length in (output["ESO DET OUT1 NY"], output["ESO DET OUT1 NX"])
    )
    data = np.mean([fits.getdata(path, name)[np.ix_(rows, columns)] for path in raws], axis=0, dtype=np.float32)
    header = fits.getheader(raws[0]).copy(strip=True)
    header["EXTNAME"] = name
    header["PIPEFILE"] = f"MASTER_BIAS-{channel:02d}.fits"
    header["HIERARCH ESO PRO CATG"] = "MASTER_DARK" if deed == "mistakes" else "MASTER_BIAS"
    header["HIERARCH ESO PRO REC1 PIPE ID"] = f"muse/{VERSION}"
    header["HIERARCH ESO QC BIAS MASTER1 RON"] = (2.5 + channel / 100, "[count] read-out noise")
    for number, (name, value) in enumerate(sorted(options.items()), 1):
        header[f"HIERARCH ESO PRO REC1 PARAM{number} NAME"] = name
        header[f"HIERARCH ESO PRO REC1 PARAM{number} VALUE"] = value
    stat = np.full_like(data, np.nan if deed == "has no numbers" else 1)
    flags = np.zeros(data.shape, np.int32)
    planes = {"DATA": data, "DQ": flags, "STAT": stat}
    if deed == "forgets":
        del planes["STAT"]
    hdus = [fits.PrimaryHDU(header=header), *(fits.ImageHDU(plane, name=name) for name, plane in planes.items())]
    path = Path(f"MASTER_BIAS-{channel:02d}.fits")
    fits.HDUList(hdus).writeto(path, checksum=True)
    if deed == "cuts short":
        path.write_bytes(path.read_bytes()[:-5760])


def _write_pixels(channel: int, sof: Path) -> int:
    """Write a pixel table of four pixels, and an image that nobody wants."""
    import numpy as np
    from astropy.io import fits

    raw = sof.read_text().split()[0]
    for catg in ("PIXTABLE_STD", "STD_RED"):
        header = fits.Header({"EXTNAME": f"CHAN{channel:02d}", "ARCFILE": Path(raw).name})
        header["HIERARCH ESO PRO CATG"] = catg
        names = ("xpos", "ypos", "lambda", "data", "dq", "stat", "origin")
        planes = [fits.ImageHDU(np.full((4, 1), channel, np.float32), name=name) for name in names]
        for plane in planes:
            plane.header["EXTNAME"] = plane.header["EXTNAME"].lower()
        hdus = fits.HDUList([fits.PrimaryHDU(header=header), *planes])
        hdus.writeto(f"{catg}_0001-{channel:02d}.fits", checksum=True)
    return 0


def _write_cube(sof: Path, options: dict[str, str]) -> int:
    """Write a cube, and into its header what it was given."""
    import numpy as np
    from astropy.io import fits

    tags = [line.split()[1] for line in sof.read_text().splitlines()]
    header = fits.Header({"ARCFILE": "MUSE.raw.fits"})
    header["HIERARCH ESO PRO CATG"] = "TWILIGHT_CUBE"
    header["HIERARCH ESO QC TWILIGHT INPUTS"] = (len(tags), f"{tags[0]} {options['ifu1']} to {options['ifu2']}")
    data = fits.ImageHDU(np.ones((2, 3, 4), np.float32), name="DATA")
    fits.HDUList([fits.PrimaryHDU(header=header), data]).writeto("TWILIGHT_CUBE_0001.fits", checksum=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
