import "uplot/dist/uPlot.min.css";
import "./style/tokens.css";
import "./style/page.css";
import "./style/panels.css";
import "./style/runs.css";
import { asked } from "./net/early";

// Not before: while the browser compiles the rest it does nothing else, and the server would wait for its question.
void asked.then(() => import("./main"));
