"""MindSpore: the scripts of MindSpore XAI's documentation on a ResNet-50 of 20 classes, with another import line.

The same weights are put into torchvision's ResNet-50, and both maps are drawn side by side. Needs MindSpore; the
weights are random (no trained ones are packaged), so the maps show that both agree, and nothing about the image.
"""

import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import torch
from mindspore import Tensor, dataset, nn
from PIL import Image
from skimage.data import astronaut
from torchvision.models import resnet50 as torch_resnet50

# from mindspore_xai.explainer import GradCAM, RISEPlus, OoDNet, ...   becomes
from seewhy import GradCAM, ImageClassificationRunner, OoDNet, RISEPlus, saliency_to_image

out = Path(sys.argv[1] if len(sys.argv) > 1 else "example-mindspore")
side = int(sys.argv[2]) if len(sys.argv) > 2 else 112
out.mkdir(parents=True, exist_ok=True)


class Bottleneck(nn.Cell):
    """Three convolutions and a way around them."""

    def __init__(self, before, width, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, width, 1), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, pad_mode="pad", padding=1)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1), nn.BatchNorm2d(4 * width)
        self.relu, self.downsample = nn.ReLU(), None
        if stride > 1 or before != 4 * width:
            around = nn.Conv2d(before, 4 * width, 1, stride, pad_mode="valid")
            self.downsample = nn.SequentialCell(around, nn.BatchNorm2d(4 * width))

    def construct(self, x):
        """(N, C, h, w) -> (N, 4 width, h / stride, w / stride)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(y)))))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Cell):
    """ResNet-50 (He et al. 2016), its parts called as torchvision's; or one of fewer blocks and channels."""

    def __init__(self, num_classes, depths=(3, 4, 6, 3), before=64):
        super().__init__()
        self.conv1 = nn.Conv2d(3, before, 7, 2, pad_mode="pad", padding=3)
        self.bn1, self.relu = nn.BatchNorm2d(before), nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, pad_mode="pad", padding=1)
        narrow = before
        for number, depth in enumerate(depths, 1):
            width, blocks = narrow * 2 ** (number - 1), []
            for i in range(depth):
                blocks.append(Bottleneck(before, width, 2 if number > 1 and i == 0 else 1))
                before = 4 * width
            setattr(self, f"layer{number}", nn.SequentialCell(*blocks))
        self.fc = nn.Dense(before, num_classes)

    def construct(self, x):
        """(N, 3, H, W) -> (N, classes)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


def checkpoint_of(network):
    """The weights of a torch network under the names that MindSpore gives them."""
    names = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
    norms = {n for n, m in network.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}
    found = []
    for name, value in network.state_dict().items():
        module, _, last = name.rpartition(".")
        if last != "num_batches_tracked":
            own = f"{module}.{names[last]}" if module in norms else name
            found.append({"name": own, "data": Tensor(value.numpy())})
    return found


# ---- a network with a checkpoint (in the documentation: resnet50.ckpt) and an image
torch.manual_seed(0)
other = torch_resnet50(num_classes=20).eval()
ms.save_checkpoint(checkpoint_of(other), str(out / "resnet50.ckpt"))
photo = Image.fromarray(astronaut()).resize((side, side))
pixels = (np.asarray(photo, np.float32) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
pixels = pixels.astype(np.float32).transpose(2, 0, 1)
image = Tensor(pixels[None])

# ---- GradCAM
net = ResNet(num_classes=20)
ms.load_param_into_net(net, ms.load_checkpoint(str(out / "resnet50.ckpt")))
grad_cam = GradCAM(net, layer="layer4")
saliency = grad_cam(image, targets=5)
saliency_to_image(saliency, photo).save(out / "grad_cam.png")

same = GradCAM(other, layer="layer4")(torch.from_numpy(pixels[None]), 5)
sheet = Image.new("RGB", (2 * side, side))
sheet.paste(saliency_to_image(saliency, photo), (0, 0))
sheet.paste(saliency_to_image(same, photo), (side, 0))
sheet.save(out / "mindspore_and_torch.png")
print(f"GradCAM of both frameworks differs by {float((saliency - same).abs().max()):.1e}.")

# ---- RISEPlus with an OoDNet; torch's train(mode) keeps its meaning, so training on data is called fit.
# MindSpore takes seconds for a ResNet-50's convolutions on a CPU: what needs many passes has a smaller one here.
net = ResNet(num_classes=20, depths=(1, 1, 1, 1), before=8)
labels = np.eye(20, dtype=np.float32)[[5, 3, 5, 3]]
views = [(np.roll(pixels, 8 * i, 2) * (1 - 0.1 * i)).astype(np.float32) for i in range(4)]
train = dataset.NumpySlicesDataset((views, labels), ["image", "label"], shuffle=False).batch(2)
ood_net = OoDNet(underlying=net, num_classes=20)
ood_net.fit(train, nn.SoftmaxCrossEntropyWithLogits(), epoch=2, progress=False)
rise_plus = RISEPlus(ood_net=ood_net, network=net, activation_fn=nn.Softmax(), num_masks=60)
saliency_to_image(rise_plus(image, targets=5), photo).save(out / "rise_plus.png")

# ---- a data set: saliency, uncertainty and hierarchical occlusion in one run
classes = [f"class {i}" for i in range(20)]
data = dataset.NumpySlicesDataset((views[:2], [5, 3]), ["image", "label"], shuffle=False).batch(2)
runner = ImageClassificationRunner(
    summary_dir=out / "run", data=(data, classes), network=net, activation_fn=nn.Sigmoid(), progress=False,
)  # fmt: skip
runner.register_saliency(explainers=[GradCAM(net, layer="layer4"), "recipro_cam"])
runner.register_uncertainty()
runner.register_hierarchical_occlusion()
print(runner.run())
