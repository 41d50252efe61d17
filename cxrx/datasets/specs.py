"""The built-in data set layouts; what reads them is imported when it is needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cxrx.specs import Dataset, DatasetSpec

NIH = "nih-chestxray14"
RSNA = "rsna-pneumonia"
CHEXPERT = "chexpert"
MIMIC = "mimic-cxr-jpg"
VINDR = "vindr-cxr"
SIIM = "siim-acr"
CLASS_FOLDERS = "class-folders"
TABLES = "tables"

_SUMMARIES = {
    NIH: "Data_Entry_2017*.csv, BBox_List_2017.csv, train_val_list.txt, test_list.txt, images*/*.png",
    RSNA: "stage_2_train_labels.csv, stage_2_detailed_class_info.csv, stage_2_train_images/<patientId>.dcm",
    CHEXPERT: "train.csv, valid.csv, {train,valid}/patient*/study*/*.jpg; CheXlocalize's gt_*.json masks",
    MIMIC: "mimic-cxr-2.0.0-{chexpert,metadata,split}.csv(.gz), files/p10/p*/s*/<dicom_id>.jpg",
    VINDR: "annotations_{train,test}.csv or train.csv, image_labels_{train,test}.csv, {train,test}/*.dicom",
    SIIM: "train-rle.csv, dicom-images-train/*/*/<ImageId>.dcm",
    CLASS_FOLDERS: "{train,test}/{NORMAL,PNEUMONIA,...}/*, or {NORMAL,PNEUMONIA,...}/*",
    TABLES: "anybody's CSV: path,<finding>,... with 1, 0, -1 or blank; path,label in words; path,finding,x,y,w,h",
}


def _open(folder: Path) -> Dataset:
    from cxrx.datasets.truth import read_truth

    return read_truth(folder)


def _sniffer(name: str) -> Callable[[Path], bool]:
    def sniff(folder: Path) -> bool:
        from cxrx.datasets.truth import recognised

        return recognised(folder, name)

    return sniff


BUILTIN_DATASETS = tuple(DatasetSpec(name, _sniffer(name), _open, text) for name, text in _SUMMARIES.items())
