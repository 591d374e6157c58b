#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Man pages, --help and documentation speak of the same programs: every option that one of them explains exists and
is in the other; every command line that is shown has verbs and options that there are; every verb's help has an
example; every configuration value that a page documents is accepted by --check-config; the units pass
systemd-analyze."""
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib

from rig import BIN, ROOT, SKIPPED

MAN = ROOT / "packaging/man"
UNITS = ROOT / "packaging/systemd"
PAGES = sorted(MAN.glob("*.[18]"))
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
DEFINED = re.compile(r"^ {1,4}(?:-\w,)?(--[a-z][a-z0-9-]*)", re.M)
# What the manual pages need not repeat of every program.
EVERYWHERE = {"--help", "--version"}

wrong: list[str] = []


def text_of(*args) -> str:
    done = subprocess.run([str(a) for a in args], capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        wrong.append(f"{' '.join(map(str, args))}: status {done.returncode}: {done.stderr.strip()[:200]}")
    return done.stdout


class Program:
    """What --help says: the program's own options, its verbs ("info", "key show"), and the options of each."""

    def __init__(self, name: str):
        self.name = name
        self.help = text_of(BIN / name, "--help")
        self.options = set(DEFINED.findall(self.help))
        self.verbs = {}
        self.said = [self.help]
        self.add_verbs((), self.help)
        if not re.search(rf"^ *{name} ", self.help.partition("\n\n")[2], re.M):
            wrong.append(f"'{name} --help' has no example")

    def add_verbs(self, above: tuple[str, ...], shown: str):
        after = shown.partition("Subcommands:\n")[2].partition("\n\n")[0]
        for verb in re.findall(r"^  ([a-z-]+)", after, re.M):
            words = (*above, verb)
            name = " ".join(words)
            said = text_of(BIN / self.name, *words, "--help")
            self.said.append(said)
            self.verbs[name] = set(DEFINED.findall(said))
            if not re.search(rf"^  {self.name} {name}", said, re.M):
                wrong.append(f"'{self.name} {name} --help' has no example")
            self.add_verbs(words, said)

    def verb_of(self, words: list[str]) -> str:
        """The verb of a command line, as long as it is; nothing where there is none."""
        for at in range(len(words)):
            if words[at] in self.verbs:
                longer = " ".join(words[at:at + 2])
                return longer if longer in self.verbs else words[at]
        return ""

    def all_options(self) -> set[str]:
        return self.options.union(*self.verbs.values()) if self.verbs else self.options


def check_page(page: pathlib.Path, program: Program):
    for line in text_of("mandoc", "-T", "lint", "-W", "error", page).splitlines():
        wrong.append(line)
    shown = re.sub(r".\x08", "", text_of("mandoc", "-T", "ascii", page))
    others = tuple({p.stem for p in PAGES} - {program.name} | {"systemctl"})
    explained = {o for line in shown.splitlines() if not line.strip().startswith(others) for o in OPTION.findall(line)}
    for option in sorted(explained - program.all_options() - EVERYWHERE):
        wrong.append(f"{page.name} has {option}, which '{program.name} --help' has not")
    for option in sorted(program.all_options() - explained - EVERYWHERE):
        wrong.append(f"'{program.name} --help' has {option}, which {page.name} has not")
    for verb in sorted(program.verbs):
        if not re.search(rf"\b{verb}\b", shown):
            wrong.append(f"'{program.name} {verb}' is not in {page.name}")
    if "EXAMPLE" not in shown:
        wrong.append(f"{page.name} has no examples")


def command_lines(text: str):
    """The simple commands of shell lines, each as its words."""
    for line in text.split("\n"):
        line = re.sub(r"\s{2,}(#|\().*$", "", line)
        try:
            words = list(shlex.shlex(line, posix=True, punctuation_chars="();<>|&"))
        except ValueError:
            continue
        command: list[str] = []
        for word in [*words, ";"]:
            if set(word) <= set("();<>|&"):
                yield command
                command = []
            else:
                command.append(word)


def check_commands(where: str, text: str, programs: dict[str, Program]) -> int:
    count = 0
    for words in command_lines(text):
        while words and (words[0] == "sudo" or "=" in words[0]):
            words = words[1:]
        program = programs.get(pathlib.PurePath(words[0]).name) if words else None
        if not program:
            continue
        count += 1
        verb = program.verb_of(words[1:])
        known = program.options | EVERYWHERE
        if verb:
            known = known | program.verbs[verb]
            after = words[words.index(verb.split()[-1]) + 1:]
            if any(name.startswith(f"{verb} ") for name in program.verbs) and after and not after[0].startswith("-"):
                wrong.append(f"{where}: '{' '.join(words)}': '{verb}' has no '{after[0]}'")
        elif program.verbs and len(words) > 1 and not words[1].startswith("-") and words[1].islower():
            wrong.append(f"{where}: '{' '.join(words)}': there is no verb '{words[1]}'")
        for word in words[1:]:
            option = word.partition("=")[0]
            if option.startswith("--") and option not in known:
                wrong.append(f"{where}: '{' '.join(words)}': there is no {option}")
    return count


def documented_values(page: pathlib.Path):
    """(section, key, value) of each literal in a page's CONFIGURATION: the words of a choice ("auto, pread or x."), what
    follows "Default:", and what stands in parentheses, one for each key of its paragraph."""
    configuration = page.read_text().partition(".SH CONFIGURATION\n")[2].partition("\n.SH ")[0]
    for paragraph in configuration.split("\n.TP\n")[1:]:
        tag, _, text = paragraph.partition("\n")
        names = re.sub(r"[\",]", " ", tag.partition(" ")[2]).split()
        section = names.pop(0).strip("[]") if names[0].startswith("[") else ""
        keys = [(section, name) if section else tuple(name.split(".")) for name in names]
        text = re.sub(r"^\.[BI]R? ", "", text, flags=re.M).replace("\n", " ")
        choice = re.match(r"\w+(?:, \w+)* or \w+(?=\.)", text)
        if choice:
            yield from ((*keys[0], word) for word in re.split(r", | or ", choice[0]))
        default = re.search(r"Default: (\S+?)( and \S+?)? ?[.,](?: |$)", text)
        if default:
            said = [word.removeprefix(" and ") for word in default.groups() if word]
        else:
            groups = [group.partition(";")[0].split(", ") for group in re.findall(r"\(([^)]*)\)", text)]
            said = [word.strip('"') for group in groups for word in group if re.fullmatch(r'\d+|"[^"]+"', word)]
        if said and len(said) != len(keys):
            wrong.append(f"{page.name}: {tag}: {len(keys)} keys, and values for {len(said)}: {said}")
        yield from ((*key, int(word) if word.isdigit() else word) for key, word in zip(keys, said))


def check_configurations() -> int:
    """Each documented value, alone in a configuration that 'herald init' made."""
    count = 0
    with tempfile.TemporaryDirectory(prefix="herald-manuals-") as folder:
        text_of(BIN / "herald", "init", f"{folder}/site", "--server-host", "127.0.0.1")
        for program, made in (("herald-replicator", "machine/replicator.toml"),
                              ("herald-process-server", "server/process-server.toml")):
            made = pathlib.Path(folder, "site", made)
            for section, key, value in documented_values(MAN / f"{program}.8"):
                count += 1
                config = tomllib.loads(made.read_text())
                config.setdefault(section, {})[key] = value
                tried = made.with_name("tried.toml")
                tried.write_text("".join(f"[{name}]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in keys.items())
                                         for name, keys in config.items()))
                done = subprocess.run([BIN / program, "--config", tried, "--check-config"], capture_output=True, text=True,
                                      timeout=60)
                if done.returncode != 0:
                    wrong.append(f"{program}.8 documents {section}.{key} = {value!r}: {done.stdout}{done.stderr}".strip())
    return count


def check_units():
    """The units as they stand, with programs where they name them."""
    if not shutil.which("systemd-analyze"):
        print("SKIPPED: no systemd-analyze for the units")
        return SKIPPED
    with tempfile.TemporaryDirectory(prefix="herald-units-") as folder:
        for unit in UNITS.glob("*.service"):
            text = unit.read_text()
            for program in set(re.findall(r"/usr/sbin/(\S+)", text)):
                text = text.replace(f"/usr/sbin/{program}", str(BIN / program))
            (pathlib.Path(folder) / unit.name).write_text(text)
        units = sorted(str(p) for p in pathlib.Path(folder).glob("*.service"))
        # --man=no: the pages are not where man(1) looks.
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *units], capture_output=True,
                              text=True, timeout=120, env={**os.environ, "SYSTEMD_LOG_LEVEL": "warning"})
        if done.returncode != 0 or folder in done.stderr:
            wrong.append(f"systemd-analyze verify: status {done.returncode}\n{done.stderr}")
        print(f"{len(units)} units verified")
    return 0


def main() -> int:
    programs = {page.stem: Program(page.stem) for page in PAGES}
    for path in BIN.iterdir():
        if path.name.startswith(("herald", "cbtctl", "hrl")) and path.name not in programs:
            wrong.append(f"{path.name} has no man page")
    count = 0
    for page in PAGES:
        check_page(page, programs[page.stem])
        shown = re.sub(r".\x08", "", text_of("mandoc", "-T", "ascii", page))
        count += check_commands(page.name, shown.partition("EXAMPLE")[2].partition("SEE ALSO")[0], programs)
    for program in programs.values():
        for said in program.said:
            count += check_commands(f"{program.name} --help", said.partition("xample")[2], programs)
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        text = page.read_text()
        code = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text) + re.findall(r"^ *```sh.*?\n(.*?)^ *```", text, re.S | re.M)
        count += check_commands(str(page.relative_to(ROOT)), "\n".join(code), programs)
    values = check_configurations()
    skipped = check_units()
    for line in wrong:
        print(line)
    print(f"{len(programs)} programs, {count} command lines, {values} configuration values, {len(wrong)} wrong")
    return 1 if wrong or count < 50 or values < 25 else skipped


if __name__ == "__main__":
    sys.exit(main())
