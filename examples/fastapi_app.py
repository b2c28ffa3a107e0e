"""A FastAPI service; whoever hangs up frees what worked for them. Run it: python examples/fastapi_app.py, and ask it:

curl -d '{"question": "Why is the sky blue?"}' -H 'content-type: application/json' localhost:8000/answer
curl -N 'localhost:8000/stream?question=Why+is+the+sky+blue'
"""

import asyncio
import json
import os
from contextlib import asynccontextmanager

import uvicorn
from fastapi import Body, FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

import dspex

lm = dspex.LM(os.environ.get("DSPEX_LM", "local/smollm2"), max_tokens=200, timeout=60)
supervisor = dspex.Supervisor(pools=[dspex.PoolConfig("dspy", size=2)])  # starts nothing yet
think = dspex.chain_of_thought("question -> answer", implementation="python", lm=lm, supervisor=supervisor)


@asynccontextmanager
async def lifespan(app: FastAPI):
    async with supervisor:  # one for each process of the server
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/ready")
async def ready() -> JSONResponse:
    return JSONResponse(health := supervisor.health(), 200 if all(p["is_ready"] for p in health.values()) else 503)


@app.post("/answer")
async def answer(request: Request, question: str = Body(embed=True)) -> JSONResponse:
    work = asyncio.ensure_future(think.acall(question=question))
    gone = asyncio.ensure_future(request.receive())  # the body was read; what comes next is the disconnect
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        return JSONResponse(work.result().to_dict()) if work.done() else JSONResponse(None, 499)
    except dspex.DspexError as error:
        return JSONResponse({"error": str(error), "retryable": error.retryable}, 503)
    finally:
        work.cancel()
        gone.cancel()


@app.get("/stream")
async def stream(question: str) -> StreamingResponse:
    items = dspex.apredict_stream("question -> answer", {"question": question}, lm=lm)
    shown = (item.text if isinstance(item, dspex.Chunk) else item.to_dict() async for item in items)
    return StreamingResponse((f"data: {json.dumps(each)}\n\n" async for each in shown), media_type="text/event-stream")


if __name__ == "__main__":
    uvicorn.run(app)
